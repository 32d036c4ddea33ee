"""Sources of the edk2 releases that have a series, as Debian packages them: fetched by apt, unpacked, patched.

    python -m ovmf_patches.sources FOLDER           fetches and unpacks what is not there yet
    python -m ovmf_patches.sources FOLDER RELEASE   one release alone

Each release is a folder of FOLDER, a tree as Debian builds it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ovmf_patches.apt import AptError, fetch_all, private_apt, run, workplace

SUITES = {"edk2-stable202211": "bookworm", "edk2-stable202502": "trixie"}
"""Release -> Debian suite whose package `edk2` it is."""


def fetch(release: str, folder: Path) -> Path:
    """The release's tree in `folder`, fetched if it is not there. Raises `AptError`."""
    tree = folder / release
    if tree.is_dir():
        return tree
    with workplace(folder) as work:
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
    options = private_apt("deb-src", suite, work)
    run(["apt-get", *options, "source", "--download-only", "edk2"], work, None)
    originals, packagings = sorted(work.glob("*.orig.tar.*")), sorted(work.glob("*.debian.tar.*"))
    if not originals or not packagings:
        raise AptError(f"apt has no source package edk2 of {suite}")
    return originals[-1], packagings[-1]


def _unpack(original: Path, packaging: Path, tree: Path) -> None:
    for path in (original, packaging):
        run(["tar", "-xf", str(path), "-C", str(tree.parent)], tree.parent, f"cannot unpack {path.name}")
    # The one has a top folder of its own, the other is `debian`.
    tops = [path for path in tree.parent.iterdir() if (path / "OvmfPkg").is_dir()]
    if len(tops) != 1:
        raise AptError(f"{original.name} has no folder OvmfPkg below its top")
    tops[0].rename(tree)
    (tree.parent / "debian").rename(tree / "debian")
    for line in (tree / "debian/patches/series").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            patch = tree / "debian/patches" / line.split()[0]
            run(["patch", "-p1", "-s", "--binary", "-i", str(patch)], tree, f"{patch.name} does not apply")


def main(arguments: Sequence[str]) -> int:
    """Fetch what the command line names."""
    return fetch_all("sources", fetch, list(SUITES), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
