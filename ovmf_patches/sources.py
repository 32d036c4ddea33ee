"""Sources of the edk2 releases that have a series, as Debian packages them: fetched by apt, unpacked, patched.

    python -m ovmf_patches.sources FOLDER           fetches and unpacks what is not there yet
    python -m ovmf_patches.sources FOLDER RELEASE   one release alone

Each release is a folder of FOLDER, a tree as Debian builds it. apt is told nothing but the machine's own sources, with
another suite where need be, in lists of its own; it verifies what it loads. On what is not Debian this fails.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUITES = {"edk2-stable202211": "bookworm", "edk2-stable202502": "trixie"}
"""Release -> Debian suite whose package `edk2` it is."""

_OWN_SUITES = re.compile(r"^VERSION_CODENAME=(\w+)$", re.MULTILINE)
_APT = Path("/etc/apt")


class SourceError(Exception):
    """A release that cannot be had here."""


def fetch(release: str, folder: Path) -> Path:
    """The release's tree in `folder`, fetched if it is not there. Raises `SourceError`."""
    tree = folder / release
    if tree.is_dir():
        return tree
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name).resolve()
        original, packaging = _download(SUITES[release], work)
        unpacked = work / "tree"
        _unpack(original, packaging, unpacked)
        unpacked.rename(tree)
    return tree


def _download(suite: str, work: Path) -> tuple[Path, Path]:
    """The two tarballs of the source package.

    Its .dsc may be missing on a mirror that has both, so apt's verdict on the whole does not count; it leaves
    no file whose digest is wrong.
    """
    options = _private_apt(suite, work)
    _run(["apt-get", *options, "update"], work, f"no package lists of {suite}")
    _run(["apt-get", *options, "source", "--download-only", "edk2"], work, None)
    originals, packagings = sorted(work.glob("*.orig.tar.*")), sorted(work.glob("*.debian.tar.*"))
    if not originals or not packagings:
        raise SourceError(f"apt has no source package edk2 of {suite}")
    return originals[-1], packagings[-1]


def _private_apt(suite: str, work: Path) -> list[str]:
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    own = _OWN_SUITES.search(Path("/etc/os-release").read_text(encoding="utf-8"))
    if own is None or not _APT.is_dir():
        raise SourceError("this is no Debian system: apt has no sources to take edk2 from")
    parts = work / "sources.list.d"
    parts.mkdir()
    for path in (_APT / "sources.list", *(_APT / "sources.list.d").glob("*")):
        if path.suffix in {".list", ".sources"} and path.is_file():
            text = _with_suite(path.read_text(encoding="utf-8"), own[1], suite)
            (parts / path.name).write_text(text, encoding="utf-8")
    return [
        "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}",
        "-o", f"Dir::State::lists={work / 'lists'}", "-o", f"Dir::Cache={work / 'cache'}",
        "-o", "APT::Sandbox::User=root", "-qq",
    ]  # fmt: skip


def _with_suite(text: str, own: str, suite: str) -> str:
    """Only what offers the system's own suite, as sources of `suite`: in one-line style, or in deb822's stanzas."""
    stanzas = re.split(r"\n\s*\n", text) if "\nSuites:" in f"\n{text}" else text.splitlines()
    kept = [stanza for stanza in stanzas if own in stanza and not stanza.startswith("#")]
    changed = [re.sub(rf"\b{own}\b", suite, stanza) for stanza in kept]
    return "\n\n".join(re.sub(r"^(Types: )?deb\b(?!-src)", r"\1deb-src", part, flags=re.MULTILINE) for part in changed)


def _unpack(original: Path, packaging: Path, tree: Path) -> None:
    for path in (original, packaging):
        _run(["tar", "-xf", str(path), "-C", str(tree.parent)], tree.parent, f"cannot unpack {path.name}")
    # The one has a top folder of its own, the other is `debian`.
    tops = [path for path in tree.parent.iterdir() if (path / "OvmfPkg").is_dir()]
    if len(tops) != 1:
        raise SourceError(f"{original.name} has no folder OvmfPkg below its top")
    tops[0].rename(tree)
    (tree.parent / "debian").rename(tree / "debian")
    for line in (tree / "debian/patches/series").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            patch = tree / "debian/patches" / line.split()[0]
            _run(["patch", "-p1", "-s", "--binary", "-i", str(patch)], tree, f"{patch.name} does not apply")


def _run(command: Sequence[str], folder: Path, complaint: str | None) -> None:
    if shutil.which(command[0]) is None:
        raise SourceError(f"{command[0]} is not installed")
    result = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)  # noqa: S603
    if result.returncode and complaint:
        raise SourceError(f"{complaint}: {(result.stderr or result.stdout).strip().splitlines()[-1]}")


def main(arguments: Sequence[str]) -> int:
    """Fetch what the command line names."""
    folder, releases = Path(arguments[0]), arguments[1:] or list(SUITES)
    try:
        for release in releases:
            print(fetch(release, folder))
    except SourceError as error:
        print(f"sources: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
