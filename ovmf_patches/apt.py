"""apt, told nothing but the machine's own sources, with another suite where need be, in lists of its own.

Nor what is installed, or a newer package would keep an older suite's from being taken.

It verifies what it loads. On what is not Debian this fails.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_OWN_SUITE = re.compile(r"^VERSION_CODENAME=(\w+)$", re.MULTILINE)
_ONE_LINE = re.compile(r"^deb(?:-src)?(\s+\[[^]]*\])?\s+(\S+)\s+(\S+)(.*)$")
_WITHOUT_POCKETS = {"sid"}
"""Suites beside which there are none for updates or security."""
_APT = Path("/etc/apt")


class AptError(Exception):
    """A package that cannot be had here."""


def private_apt(kind: str, suite: str, work: Path) -> list[str]:
    """Options for apt-get, whose lists of `suite` are then loaded; `kind` is deb or deb-src. Raises `AptError`."""
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    (work / "status").touch()
    own = _OWN_SUITE.search(Path("/etc/os-release").read_text(encoding="utf-8"))
    if own is None or not _APT.is_dir():
        raise AptError("this is no Debian system: apt has no sources to take packages from")
    parts = work / "sources.list.d"
    parts.mkdir()
    for path in (_APT / "sources.list", *(_APT / "sources.list.d").glob("*")):
        if path.suffix in {".list", ".sources"} and path.is_file():
            text = of_suite(path.read_text(encoding="utf-8"), kind, own[1], suite)
            (parts / path.name).write_text(text, encoding="utf-8")
    options = [
        "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}",
        "-o", f"Dir::State::status={work / 'status'}", "-o", f"Dir::State::lists={work / 'lists'}",
        "-o", f"Dir::Cache={work / 'cache'}",
        "-o", "APT::Sandbox::User=root", "-qq",
    ]  # fmt: skip
    run(["apt-get", *options, "update"], work, f"no package lists of {suite}")
    return options


def of_suite(text: str, kind: str, own: str, suite: str) -> str:
    """What offers the system's `own` suite, as sources of `suite`: in one-line style, or in deb822's stanzas."""
    if "\nSuites:" in f"\n{text}":
        stanzas = [_stanza(stanza, kind, own, suite) for stanza in re.split(r"\n\s*\n", text)]
        return "\n\n".join(stanza for stanza in stanzas if stanza)
    lines = [_line(line, kind, own, suite) for line in text.splitlines()]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines) if line)


def _stanza(stanza: str, kind: str, own: str, suite: str) -> str:
    found = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
    suites = [] if found is None else _suites(found[1].split(), own, suite)
    changed = re.sub(r"^Suites:.*$", f"Suites: {' '.join(suites)}", stanza, flags=re.MULTILINE)
    return re.sub(r"^Types:.*$", f"Types: {kind}", changed, flags=re.MULTILINE) if suites else ""


def _line(line: str, kind: str, own: str, suite: str) -> str:
    found = _ONE_LINE.match(line)
    suites = [] if found is None else _suites([found[3]], own, suite)
    return f"{kind}{found[1] or ''} {found[2]} {suites[0]}{found[4]}" if found and suites else ""


def _suites(names: Sequence[str], own: str, suite: str) -> list[str]:
    pockets = [name.removeprefix(own) for name in names if name == own or name.startswith(f"{own}-")]
    return [suite + pocket for pocket in pockets if not pocket or suite not in _WITHOUT_POCKETS]


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """An empty folder below `folder`, from which things can be renamed into that; it goes at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield Path(name).resolve()


def unpack(package: Path, root: Path) -> None:
    """The files of a .deb, below `root`. Raises `AptError`."""
    run(["dpkg-deb", "-x", str(package), str(root)], package.parent, f"cannot unpack {package.name}")


def run(command: Sequence[str], folder: Path, complaint: str | None) -> None:
    """Run a program in `folder`. Raises `AptError` with `complaint`, where that counts."""
    if shutil.which(command[0]) is None:
        raise AptError(f"{command[0]} is not installed")
    result = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)  # noqa: S603
    if result.returncode and complaint:
        raise AptError(f"{complaint}: {(result.stderr or result.stdout).strip().splitlines()[-1]}")


def fetch_all(program: str, fetch: Callable[[str, Path], Path], known: Sequence[str], arguments: Sequence[str]) -> int:
    """Do what a command line of a folder and names, or of none for all that are `known`, asks for; an exit code."""
    folder, names = Path(arguments[0]), arguments[1:] or known
    try:
        for name in names:
            print(fetch(name, folder))
    except AptError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0
