"""Every firmware image of Debian's suites, and what `docs/firmware.md` says of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType

import pytest

from emulator_tests.command.conftest import docs_program
from ovmf_patches import FOLDER
from ovmf_patches.apt import of_suite
from ovmf_patches.images import PACKAGES

IMAGES = FOLDER.parent / ".cache" / "firmware"
FIRMWARE: ModuleType = docs_program("firmware")
PAGE = FIRMWARE.PAGE.read_text()
REASONS = dict(re.findall(r"^(\d+)\. (.*)$", PAGE, re.MULTILINE))
VERSIONS = dict(re.findall(r"(\w+) (\d\S+)[,.](?=\s)", PAGE.partition("Packages: ")[2].partition("\n\n")[0] + "\n"))


def split(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


ROWS = {
    (cells[0], cells[1].strip("`")): cells
    for cells in map(split, re.findall(rf"^\| (?:{'|'.join(PACKAGES)}) \|.*\|$", PAGE, re.MULTILINE))
}


def folder(suite: str) -> Path:
    """The suite's images: in CI they must be there, elsewhere their absence is a skip."""
    path = IMAGES / suite
    if not path.is_dir() and os.environ.get("CI") == "true":
        pytest.fail(f"{path} is not there: see the Makefile")
    if not path.is_dir():
        pytest.skip(f"{path} is not there: see the Makefile")
    return path


def spelled_out(cell: str) -> str:
    return re.sub(r"\((\d+)\)$", lambda number: REASONS[number[1]], cell)


def without_digest(cell: str) -> str:
    return re.sub(r"^[0-9a-f]{8}\.\.\.$", "digest", cell)


@pytest.mark.parametrize("suite", PACKAGES)
def test_every_image_has_a_row(suite: str) -> None:
    here = {path.name for path in FIRMWARE.images(IMAGES) if path.parent == folder(suite)}
    assert here == {name for of, name in ROWS if of == suite}
    assert all(len(cells) == len(FIRMWARE.COLUMNS) and all(cells) for cells in ROWS.values())


@pytest.mark.parametrize(("suite", "name"), list(ROWS), ids=["-".join(row) for row in ROWS])
def test_row(suite: str, name: str) -> None:
    """Of a suite that has moved on, all but the digests."""
    path = folder(suite) / name
    notes = FIRMWARE.Notes()
    cells = FIRMWARE.cells(path, notes)
    found = [re.sub(r"\((\d+)\)$", lambda number: notes.reasons[int(number[1]) - 1], cell) for cell in cells]
    said = [spelled_out(cell) for cell in ROWS[suite, name]]
    if FIRMWARE.version(path.parent) != VERSIONS[suite]:
        found, said = [without_digest(cell) for cell in found], [without_digest(cell) for cell in said]
    assert found == said


STANZAS = """Types: deb
URIs: http://one
Suites: bookworm bookworm-updates
Components: main

Types: deb deb-src
URIs: http://two
Suites: bookworm-security
Components: main

Types: deb
URIs: http://three
Suites: other-bookworm nodistro
Components: main
"""
LINES = """# deb http://none bookworm main
deb [arch=amd64] http://one bookworm main contrib
deb-src http://one bookworm main contrib
deb http://two bookworm-security main
deb http://three other-bookworm main
"""


@pytest.mark.parametrize(
    ("text", "suite", "expected"),
    [
        (STANZAS, "trixie", ["Suites: trixie trixie-updates", "Suites: trixie-security"]),
        (STANZAS, "sid", ["Suites: sid"]),
        (STANZAS, "bookworm", ["Suites: bookworm bookworm-updates", "Suites: bookworm-security"]),
    ],
    ids=["release", "unstable", "own"],
)
def test_sources_in_stanzas(text: str, suite: str, expected: list[str]) -> None:
    found = of_suite(text, "deb-src", "bookworm", suite)
    assert [line for line in found.splitlines() if line.startswith("Suites")] == expected
    assert {line for line in found.splitlines() if line.startswith("Types")} == {"Types: deb-src"}
    assert "three" not in found


@pytest.mark.parametrize(
    ("suite", "expected"),
    [
        ("trixie", ["deb [arch=amd64] http://one trixie main contrib", "deb http://one trixie main contrib",
                    "deb http://two trixie-security main"]),
        ("sid", ["deb [arch=amd64] http://one sid main contrib", "deb http://one sid main contrib"]),
    ],
    ids=["release", "unstable"],
)  # fmt: skip
def test_sources_in_lines(suite: str, expected: list[str]) -> None:
    assert of_suite(LINES, "deb", "bookworm", suite).splitlines() == expected
