"""Includes, macros, loops and conditions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from mh_builder.asm import AssemblyError, assemble, assemble_text

if TYPE_CHECKING:
    from pathlib import Path


def data(source: str) -> list[int]:
    unit = assemble_text(f".data\n{source}", "t.s")
    return list(unit.sections[-1].data)


def errors(source: str) -> list[tuple[int, str]]:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(source, "t.s")
    return [(item.line.number, item.message) for item in caught.value.diagnostics]


def test_macros() -> None:
    assert data(
        ".macro m a, b=2, c=\n.ifdef X\\a\n.byte 99\n.endif\n.byte \\a, \\b\\c, \\@\n.endm\n"
        "m 1\nm 1, 3\nm c=5, a=(1, 2)[0]".replace("(1, 2)[0]", "7")
    ) == [1, 2, 1, 1, 3, 2, 7, 25, 3]


def test_macro_text() -> None:
    assert data('.macro m a, n\n.ascii "\\a", "\\\\a", \\n\n\\a\\()_x: .byte \\a\\()_x - .\n.endm\nm p, "q,r"') == list(
        b"p\\aq,r\0"
    )


def test_macro_that_defines_a_macro() -> None:
    assert data(".macro outer name\n.macro \\name x\n.byte \\x\n.endm\n.endm\nouter inner\ninner 5") == [5]


def test_exitm_leaves_conditions_and_loops() -> None:
    source = ".macro m\n.rept 3\n.if 1\n.byte 1\n.exitm\n.endif\n.endr\n.byte 2\n.endm\nm\n.if 1\n.byte 3\n.endif"
    assert data(source) == [1, 3]


def test_loops() -> None:
    assert data(".set i, 0\n.rept 2\n.irp x, 1, 2\n.byte \\x + i\n.endr\n.set i, i + 10\n.endr") == [1, 2, 11, 12]
    assert data(".rept 0\nrubbish ]\n.endr") == []


def test_conditions() -> None:
    source = ".if {0}\n.byte 1\n.elseif {1}\n.byte 2\n.else\n.byte 3\n.endif"
    assert [data(source.format(a, b)) for a, b in ((1, 1), (0, 1), (0, 0), (1, "1 / 0"))] == [[1], [2], [3], [1]]
    assert data(".if 0\n.if 1\n.byte 1\n.else\n.byte 2\n.endif\n'rubbish\n.elseif 1\n.byte 3\n.endif") == [3]
    assert data("x:\n.ifdef x\n.ifndef y\n.byte 1\n.endif\n.endif") == [1]


def test_conditions_see_the_symbols_so_far() -> None:
    assert data(".set A, 0\n.if A\n.byte 1\n.endif\n.set A, 1\n.if A\n.byte 2\n.endif") == [2]


@pytest.mark.parametrize(
    ("source", "line", "expected"),
    [
        (".macro m\nnop", 1, "'.macro' without '.endm'"),
        ("nop\n.irp x, 1\nnop", 2, "'.irp' without '.endr'"),
        ("nop\n.if 1\nnop", 2, "'.if' without '.endif'"),
        (".if 0\n.ifdef x\n.endif\nnop", 1, "'.if' without '.endif'"),
        (".endif", 1, "'.endif' without '.if'"),
        (".else", 1, "'.else' without '.if'"),
        (".if 1\n.else\n.else\n.endif", 3, "'.else' after '.else'"),
        (".endm", 1, "'.endm' without its beginning"),
        (".endr", 1, "'.endr' without its beginning"),
        (".exitm", 1, "'.exitm' outside a macro"),
        (".macro m a\n.endm\nm", 3, "macro 'm' needs an argument for 'a'"),
        (".macro m a\n.endm\nm 1, 2", 3, "macro 'm' takes 1 arguments"),
        (".macro m a\n.endm\nm 1, a=2", 3, "macro 'm' already has an argument for 'a'"),
        (".macro m a, a\n.endm", 1, "'a' is no name for a parameter of its own"),
        (".macro m\n.endm\n.macro m\n.endm", 3, "macro 'm' is already defined"),
        (".macro 5\n.endm", 1, "'.macro' needs a name"),
        (".rept -1\n.endr", 1, "'.rept' takes a count from 0 to 1000000"),
        (".rept x\n.endr\nx:", 1, "'x' is not a number that is known here"),
        (".irp 5, 1\n.endr", 1, "'.irp' takes a name, then the values"),
        (".macro m\nm\n.endm\nm", 2, "'m' nests deeper than 64"),
        (".macro m a\nm \\a\\a\n.endm\nm aaaa", 2, "a line of the expansion is longer than 4096 characters"),
        ("/* never", 1, "comment is never closed"),
        (".ifdef 5\n.endif", 1, "'.ifdef' takes one name"),
        (".error 5", 1, "'.error' takes a string"),
    ],
)
def test_errors(source: str, line: int, expected: str) -> None:
    assert [(number, expected in text) for number, text in errors(source)] == [(line, True)]


def test_runaway_source_ends() -> None:
    start = time.monotonic()
    source = ".macro m\n.rept 1000\n.rept 1000\n.rept 1000\n.endr\n.endr\n.endr\n.endm\nm"
    assert [text for _, text in errors(source)] == ["the source expands to more than 1000000 lines"]
    assert time.monotonic() - start < 10


def test_error_in_a_macro_names_both_lines() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(".macro inner a\n  mov al, \\a\n.endm\n.macro outer a\ninner \\a\n.endm\nnop\nouter 300", "t.s")
    assert str(caught.value) == (
        "t.s:2:3: error: number 0x12c does not fit in 8 bits (it would become 'mov al, 0x2c')\n"
        "      mov al, 300\n      ^\n"
        "t.s:5: note: macro 'inner' used here\nt.s:8: note: macro 'outer' used here"
    )


def test_all_errors_at_once() -> None:
    source = (
        "mov al, 300\nfoo eax\n.byte nowhere\njmp nowhere\n.word 65536\nmov eax, nowhere + 1\n"
        "x: .zero 200\nloop x\n.if y"
    )
    assert [number for number, _ in errors(source)] == [1, 2, 3, 4, 5, 6, 8, 9, 9]


def test_include(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "main.s").write_text('.data\n.include "sub/a.inc"\n.byte 9', encoding="ascii")
    (tmp_path / "sub" / "a.inc").write_text('.byte 1\n.include "b.inc"', encoding="ascii")
    (tmp_path / "sub" / "b.inc").write_text(".byte 2", encoding="ascii")
    unit = assemble(tmp_path / "main.s", name="main.s")
    assert unit.name == "main.s"
    assert unit.sections[-1].data == b"\x01\x02\x09"


def test_include_from_the_folder_above_is_named_as_it_lies(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "main.s").write_text('.include "../a.inc"', encoding="ascii")
    (tmp_path / "a.inc").write_text(".byte 1\n.byte oops oops", encoding="ascii")
    with pytest.raises(AssemblyError) as caught:
        assemble(tmp_path / "sub" / "main.s", name="src/sub/main.s")
    assert str(caught.value).startswith("src/a.inc:2:")


def test_include_errors(tmp_path: Path) -> None:
    (tmp_path / "main.s").write_text('.include "a.inc"\n.include "none.inc"', encoding="ascii")
    (tmp_path / "a.inc").write_text("nop\nbad ]", encoding="ascii")
    with pytest.raises(AssemblyError) as caught:
        assemble(tmp_path / "main.s", name="src/main.s")
    first, second = caught.value.diagnostics
    assert str(first).startswith("src/a.inc:2:5: error: expected an expression, found ']'\n")
    assert str(first).endswith("\nsrc/main.s:1: note: included here")
    assert second.message == "cannot include 'none.inc': No such file or directory"


def test_include_of_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "main.s").write_text('.include "main.s"', encoding="ascii")
    with pytest.raises(AssemblyError, match=r"'\.include' nests deeper than 64") as caught:
        assemble(tmp_path / "main.s", name="main.s")
    notes = str(caught.value).splitlines()[3:]
    here = "main.s:1: note: included here"
    assert notes == [here] * 3 + ["main.s: note: 57 more between these"] + [here] * 3


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError, match=r"^x\.s:1:1: error: cannot read: No such file or directory$"):
        assemble(tmp_path / "none.s", name="x.s")
