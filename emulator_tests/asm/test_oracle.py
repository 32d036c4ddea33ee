"""Byte for byte comparison with GNU `as`."""

from __future__ import annotations

import random
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from mh_builder.asm import assemble_text
from mh_builder.asm.opcodes import SIMPLE

from .corpus import GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SLOT = 32
FAR_JUMP = {32: r"ljmp \1:\2", 16: r"data32 ljmp \1:\2"}


@pytest.fixture
def gnu_as(program: Callable[[str], str]) -> str:
    program("objcopy")
    return program("as")


def reference(gnu_as: str, source: str, mode: int, section: str, directory: Path) -> bytes:
    """Assemble with `as`; `jmpf` is `ljmp` there."""
    if mode in FAR_JUMP:
        source = re.sub(r"^jmpf (\S+), (\S+)$", FAR_JUMP[mode], source, flags=re.MULTILINE)
    (directory / "r.s").write_text(f".intel_syntax noprefix\n{source}\n", encoding="ascii")
    word = "--64" if mode == 64 else "--32"
    commands: Sequence[Sequence[str]] = (
        (gnu_as, word, "-o", "r.o", "r.s"),
        ("objcopy", "-O", "binary", "-j", section, "r.o", "r.bin"),
    )
    for command in commands:
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return (directory / "r.bin").read_bytes()


def ours(source: str, section: str) -> bytes:
    unit = assemble_text(source, "c.s")
    return next(item.data for item in unit.sections if item.name == section)


@pytest.mark.parametrize("group", GROUPS)
def test_instructions(group: str, gnu_as: str, tmp_path: Path) -> None:
    mode, statements = GROUPS[group]
    assert len(statements) > 40
    assert_same(statements, mode, gnu_as, tmp_path)


@pytest.mark.parametrize("mode", SIMPLE)
def test_all_instructions_without_operands(mode: int, gnu_as: str, tmp_path: Path) -> None:
    assert_same(tuple(SIMPLE[mode]), mode, gnu_as, tmp_path)


def assert_same(statements: tuple[str, ...], mode: int, gnu_as: str, tmp_path: Path) -> None:
    """Hold the bytes of each statement to those of GNU `as`."""
    source = f".code{mode}\n" + "".join(f"{statement}\n.balign {SLOT}, 0xcc\n" for statement in statements)
    expected = reference(gnu_as, source, mode, ".text", tmp_path)
    actual = ours(source, ".text")
    assert len(actual) == len(expected) == SLOT * len(statements)
    different = {
        statement: (actual[at : at + SLOT].rstrip(b"\xcc").hex(), expected[at : at + SLOT].rstrip(b"\xcc").hex())
        for statement, at in zip(statements, range(0, len(actual), SLOT), strict=True)
        if actual[at : at + SLOT] != expected[at : at + SLOT]
    }
    assert different == {}


DATA = r"""
.data
a: .byte 1, 2, 255, -128, 'a', '\n', '\\'
.word 0x1234, -1, 65535
b: .long 1 << 31, -1, (1 + 2) * 3 - 4 / 2, ~0, 7 % 3
.quad 0xffffffffffffffff, -1, b - a, 1 << 40
.ascii "no end", "\n\t\\\"", "\0"
.asciz "end", ""
.balign 8
.zero 3
.fill 3, 2, 0x1234
.fill 2, 8, 5
.balign 16, 0x55
.equ N, 5
.set M, 1
.byte N, M
.set M, M + N * 2
.byte M
.if M > 10
.byte 0xaa
.elseif M == 11
.byte 0xbb
.else
.byte 0xcc
.endif
.ifdef N
.rept 3
.byte N
.endr
.endif
.ifndef NOWHERE
.irp x, 1, 2, 3
.byte \x * 2, \x
.endr
.endif
.zero 512 - (. - a)
.long c - b
c: .word . - a
"""

MACROS = r"""
.text
.macro push_all a, b=rbx
push \a
push \b
.endm
.macro store reg, at=0
.if \at
mov [rsp + \at], \reg
.else
mov [rsp], \reg
.endif
.endm
.macro spin
.Lspin\@:
dec ecx
jnz .Lspin\@
.endm
.macro maybe n
.if \n == 0
.exitm
.endif
mov eax, \n
maybe \n-1
.endm
push_all rax
push_all rax, r9
push_all b=rsi, a=rdi
store rax
store rcx, 8
spin
spin
maybe 4
.irp r, xmm0, xmm1
aesenc \r, xmm7
.endr
"""


@pytest.mark.parametrize(
    ("source", "section"), [pytest.param(DATA, ".data", id="data"), pytest.param(MACROS, ".text", id="macros")]
)
def test_programs(source: str, section: str, gnu_as: str, tmp_path: Path) -> None:
    assert ours(source, section) == reference(gnu_as, source, 64, section, tmp_path)


def branches(mode: int, seed: int) -> str:
    """Write a program of branches between labels whose distances straddle the reach of the short forms."""
    chance = random.Random(seed)
    rows = [f".code{mode}"]
    for number in range(120):
        rows.append(f"l{number}:")
        target = min(119, max(0, number + chance.randint(-30, 30)))
        mnemonic = chance.choice(["jmp", "jz", "jnbe", "jmp", "call", "jl"])
        rows.append(f"{mnemonic} l{target}")
        rows.append("nop\n" * chance.randint(0, 9))
        if chance.random() < 0.2:
            rows.append(f"1: loop 1b\njmp 1f\n.zero {chance.choice([0, 1, 126, 127, 128])}\n1:")
    return "\n".join(rows)


@pytest.mark.parametrize("mode", [64, 32, 16])
def test_relaxation(mode: int, gnu_as: str, tmp_path: Path) -> None:
    for seed in range(5):
        source = branches(mode, seed)
        assert ours(source, ".text") == reference(gnu_as, source, mode, ".text", tmp_path), seed
