"""Names of registers: what they stand for, how long they live, and which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mh_builder.asm import AssemblyError, assemble, assemble_text

if TYPE_CHECKING:
    from pathlib import Path


def code(source: str) -> str:
    return assemble_text(source, "t.s").sections[0].data.hex()


def errors(source: str) -> list[tuple[int, int, str]]:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(source, "t.s")
    return [(item.line.number, item.column, item.message) for item in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("register", "statement"),
    [
        ("rdi", "mov R, 5"),
        ("rdi", "mov qword ptr [R + 8], R"),
        ("r9", "mov eax, [rbx + R*4 - 16]"),
        ("r9", "mov eax, [4*R + rbx]"),
        ("ecx", "lock xadd [rbx], R"),
        ("cl", "shl eax, R"),
        ("rax", "call R"),
        ("fs", "mov R, ax"),
        ("fs", "mov rax, R:[rbx]"),
        ("cr4", "mov rax, R"),
        ("xmm12", "pclmulqdq xmm3, R, 0x11"),
        ("ymm12", "vpxor R, R, [rdi + 32]"),
        ("mm7", "movq R, rax"),
    ],
)
def test_name_stands_for_its_register(register: str, statement: str) -> None:
    assert code(f".reg R, {register}\n{statement}") == code(statement.replace("R", register))


def test_two_views_of_a_register_have_two_names() -> None:
    named = ".reg X, xmm3\n.reg Y, ymm3\n.reg WIDE, rdx\n.reg NARROW, edx\nvmovdqa Y, [WIDE]\npxor X, X\ninc NARROW"
    assert code(named) == code("vmovdqa ymm3, [rdx]\npxor xmm3, xmm3\ninc edx")


def test_name_goes_through_macros_and_loops() -> None:
    macro = ".macro clear a, b\n.irp each, \\a, \\b, HASH\npxor \\each, \\each\n.endr\n.endm\n"
    assert code(f".reg HASH, xmm9\n.reg SUM, xmm8\n{macro}clear SUM, xmm1") == code(
        f"{macro}clear xmm8, xmm1".replace("HASH", "xmm9")
    )


def test_name_ends_and_begins_again() -> None:
    source = ".reg A, rbx\n.reg B, rdx\npush A\npush B\n.unreg A, B\n.reg A, rcx\npush A"
    assert code(source) == code("push rbx\npush rdx\npush rcx")


def test_name_may_be_a_symbols_once_it_has_ended() -> None:
    assert code(".reg A, rbx\npush A\n.unreg A\n.equ A, 5\npush A") == code("push rbx\npush 5")


def test_names_of_an_include_need_no_use(tmp_path: Path) -> None:
    (tmp_path / "names.inc").write_text(".reg A, rbx\n.reg B, rcx\n", encoding="ascii")
    (tmp_path / "t.s").write_text('.include "names.inc"\npush A\n', encoding="ascii")
    assert assemble(tmp_path / "t.s").sections[0].data.hex() == code("push rbx")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (".reg mov, rax", (1, 6, "'mov' is no name of a register: write it in capitals")),
        (".reg rbx, rax", (1, 6, "'rbx' is no name of a register: write it in capitals")),
        (".reg Hash, rax", (1, 6, "'Hash' is no name of a register: write it in capitals")),
        (".reg _A, rax", (1, 6, "'_A' is no name of a register: write it in capitals")),
        (".reg ptr, rax", (1, 6, "'ptr' is no name of a register: write it in capitals")),
        (".reg 5, rax", (1, 6, "'5' is no name of a register: write it in capitals")),
        (".reg", (1, 5, "expected ',', found end of line")),
        (".reg A", (1, 7, "expected ',', found end of line")),
        (".reg A,", (1, 8, "expected a register, found 'end of line'")),
        (".reg A, rip", (1, 9, "expected a register, found 'rip'")),
        (".reg A, zmm32", (1, 9, "expected a register, found 'zmm32'")),
        (".reg A, 5", (1, 9, "expected a register, found '5'")),
        (".reg A, [rax]", (1, 10, "expected end of line, found 'rax'")),
        (".reg A, rax, rbx", (1, 12, "expected end of line, found ','")),
        (".reg A, rax\npush A\n.reg B, A\npush B", (3, 9, "expected a register, found 'A'")),
        (".reg A, rax\npush A\n.reg A, rbx", (3, 6, "'A' already names 'rax'")),
        (".reg A, rax\npush A\n.reg A, rax", (3, 6, "'A' already names 'rax'")),
        ("A:\n.reg A, rax", (2, 6, "'A' is already defined")),
        (".equ A, 1\n.reg A, rax", (2, 6, "'A' is already defined")),
        (".set A, 1\n.reg A, rax", (2, 6, "'A' is already defined")),
        (".extern A\n.reg A, rax", (2, 6, "'A' is already defined")),
        (".global A\n.reg A, rax", (2, 6, "'A' is already defined")),
        (".reg A, rax\npush A\nA:", (3, 1, "'A' is the name of a register")),
        (".reg A, rax\npush A\n.equ A, 1", (3, 6, "'A' is the name of a register")),
        (".reg A, rax\npush A\n.set A, 1", (3, 6, "'A' is the name of a register")),
        (".reg A, rax\npush A\n.extern A", (3, 9, "'A' is no symbol of the object file")),
        (".reg A, rax\npush A\n.global A", (3, 9, "'A' is no symbol of the object file")),
        (".reg A, rax\npush A\n.data\n.quad A", (4, 7, "register 'A' cannot be part of an expression")),
        (".reg A, rax\npush A\n.if A\n.endif", (3, 5, "register 'A' cannot be part of an expression")),
        (".reg A, rax\npush A + 1", (2, 8, "expected end of line, found '+'")),
        (".reg A, rax\nmov [rbx - A], eax", (2, 12, "a register cannot be subtracted")),
        (".reg A, xmm1\nmov rax, [A]", (2, 10, "'xmm1' cannot address memory in 64-bit code")),
        (".reg A, rax\nA rbx", (2, 1, "'A' is no instruction, directive or macro")),
        ("mov rax, A\n.reg A, rbx\npush A", (1, 10, "'A' names a register, but not here")),
        ("push A\n.reg A, rbx", (1, 6, "'A' names a register, but not here")),
        (".reg A, rax\npush A\n.unreg A\npush A", (4, 6, "'A' names a register, but not here")),
        (".unreg A", (1, 8, "'A' names no register")),
        (".unreg", (1, 7, "'end of line' names no register")),
        (".reg A, rax\npush A\n.unreg A\n.unreg A", (4, 8, "'A' names no register")),
        (".reg A, rax\npush A\n.unreg A, B", (3, 11, "'B' names no register")),
        (".reg A, rax\npush A\n.unreg A B", (3, 10, "expected end of line, found 'B'")),
        (".reg A, rax", (1, 6, "'.reg A' is never used")),
        (".reg A, rax\n.unreg A\n.reg A, rbx\npush A", (1, 6, "'.reg A' is never used")),
        (".code32\n.reg A, r9\npush A", (3, 6, "'r9' exists in 64-bit code only")),
    ],
)
def test_errors(source: str, expected: tuple[int, int, str]) -> None:
    assert expected in errors(source)
