"""An include that many files begin with is read once, and nobody can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import AssemblyError, ObjectFile, assemble, assemble_text, assembler
from mh_builder.landing import landing_symbols

SOURCES = sorted(path for path in PAYLOAD.rglob("*.s") if ".include" in path.read_text(encoding="ascii"))


def read_anew(path: Path) -> ObjectFile:
    """Behind a statement, so that the include is not what the file begins with; columns and lines stay."""
    text = path.read_text(encoding="ascii")
    first, newline, rest = text.partition("\n")
    assert first.startswith("#")
    return assemble_text(f".text{newline}{rest}", path.name, symbols=symbols_of(path), include_dir=path.parent)


def symbols_of(path: Path) -> dict[str, int | str]:
    return landing_symbols() if path.parent.name == "landing" else abi.assembler_symbols()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_objects_are_the_same(path: Path) -> None:
    for _ in range(2):
        assert assemble(path, symbols=symbols_of(path), name=path.name) == read_anew(path)


def test_an_include_that_changes_is_read_again(tmp_path: Path) -> None:
    text = '.include "a.inc"\n.byte NUMBER\n'
    (tmp_path / "a.inc").write_text('.include "b.inc"\n')
    for number in (1, 2):
        (tmp_path / "b.inc").write_text(f".equ NUMBER, {number}\n")
        assert assemble_text(text, "x.s", include_dir=tmp_path).sections[0].data == bytes([number])


def test_names_of_one_file_are_not_those_of_the_next(tmp_path: Path) -> None:
    (tmp_path / "a.inc").write_text(".set count, 0\n.macro next\n.set count, count + 1\n.byte count\n.endm\n")
    for extra in ("own", "other"):
        text = f'.include "a.inc"\nnext\nnext\n.equ {extra}, 7\n.byte {extra}\n'
        assert assemble_text(text, "x.s", include_dir=tmp_path).sections[0].data == b"\1\2\7"


def test_places_are_those_of_each_name(tmp_path: Path) -> None:
    (tmp_path / "a.inc").write_text(".macro one\nnop\n.endm\n")
    for name in ("there/x.s", "here/x.s"):
        (section,) = assemble_text('.include "a.inc"\none\n', name, include_dir=tmp_path).sections
        folder = name.partition("/")[0]
        assert [place.partition(" ")[0] for _, _, place in section.places] == [f"{folder}/a.inc:2"]


def test_other_symbols_make_another_prelude(tmp_path: Path) -> None:
    (tmp_path / "a.inc").write_text(".ifdef WIDE\n.equ bits, 64\n.else\n.equ bits, 32\n.endif\n")
    for symbols, bits in (({}, 32), ({"WIDE": 1}, 64), ({}, 32)):
        unit = assemble_text('.include "a.inc"\n.byte bits\n', "x.s", symbols=symbols, include_dir=tmp_path)
        assert unit.sections[0].data == bytes([bits])
        assert "WIDE" in unit.asked


@pytest.mark.parametrize(
    ("inside", "after", "expected"),
    [
        (".byte 1\n", ".byte 2", b"\1\2"),
        ("here:\n", ".long here", b"\0\0\0\0"),
        (".byte 1\n.balign 4\n", ".byte 2", b"\1\x90\x90\x90\2"),
        (".code32\n", "inc eax", b"\x40"),
        (".section .rodata\n", ".byte 3", b"\3"),
        (".reg ONE, eax\n", "not ONE", b"\xf7\xd0"),
    ],
)
def test_an_include_with_more_than_names_is_read_by_each_file(
    tmp_path: Path, inside: str, after: str, expected: bytes
) -> None:
    (tmp_path / "a.inc").write_text(inside)
    for _ in range(2):
        unit = assemble_text(f'.include "a.inc"\n{after}\n', "x.s", include_dir=tmp_path)
        assert [section.data for section in unit.sections if section.data] == [expected]


def test_an_error_names_the_file_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "a.inc").write_text(".macro wrong\n.byte nothing_here\n.endm\n.global never\n")
    for name in ("first.s", "second.s"):
        with pytest.raises(AssemblyError) as caught:
            assemble_text('.include "a.inc"\nwrong\n', name, include_dir=tmp_path)
        assert name in str(caught.value)
        assert ("first.s" in str(caught.value)) == (name == "first.s")


def test_preludes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.inc").write_text(".equ number, 1\n")
    for value in range(2 * assembler.MAX_PRELUDES):
        assemble_text('.include "a.inc"\n.byte number\n', "x.s", symbols={"VALUE": value}, include_dir=tmp_path)
    assert len(assembler._PRELUDES) <= assembler.MAX_PRELUDES
