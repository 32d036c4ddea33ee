"""VEX and EVEX instructions: the same bytes as GNU `as`, read back by `objdump`, and what is refused."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mh_builder.asm import AssemblyError, assemble_text, evex, vex
from mh_builder.asm.forms import Form

from .test_oracle import SLOT, ours, reference

GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
DISPLACEMENTS: tuple[int, ...] = (0, 1, -1, 127, 128, -128, -129, 0x12345678, -0x80000000, 0x7FFFFFFF)
DISPLACEMENTS += (64, -64, 32, -2048, 2032, 4064, -4096, 8128, 8192, -8192, -8256)  # units of EVEX, and their ends
BANKS = {128: "xmm", 256: "ymm", 512: "zmm"}


def address(chance: random.Random) -> str:
    base, index = chance.choice(GENERAL), chance.choice([name for name in GENERAL if name != "rsp"])
    scale, displacement = chance.choice((1, 2, 4, 8)), chance.choice(DISPLACEMENTS)
    shown = f"{displacement:+d}" if displacement else ""
    return chance.choice((
        f"[{base}{shown}]",
        f"[{base} + {index}*{scale}{shown}]",
        f"[{index}*{chance.choice((2, 4, 8))}{shown}]",
        f"[rip + {abs(displacement) % 0x7FFFFFFF}]",
        f"[{abs(displacement) % 0x7FFFFFFF}]",
    ))  # fmt: skip


def statement(mnemonic: str, form: Form, chance: random.Random, registers: int = 16) -> str:
    bits = chance.choice(form.widths)
    operands = []
    for letter in form.operands:
        name = BANKS[form.narrow_bits if letter in form.narrow else bits]
        if letter == "M" or (letter == "m" and chance.random() < 0.5):
            size = chance.choice(("", f"{name}word ptr "))
            operands.append(size + address(chance))
        elif letter == "G":
            operands.append(chance.choice(GENERAL))
        elif letter == "i":
            operands.append(str(chance.choice((0, 1, 0x10, 0x11, 0x80, 255))))
        else:
            operands.append(f"{name}{chance.randrange(registers)}")
    return f"{mnemonic} {', '.join(operands)}".rstrip()


def corpus(table: Mapping[str, tuple[Form, ...]] = vex.TABLE, registers: int = 16) -> list[str]:
    chance = random.Random(1)
    forms = [(mnemonic, form) for mnemonic, items in table.items() for form in items]
    return [
        statement(mnemonic, form, chance, registers)
        for mnemonic, form in forms
        for _ in range(40 * len(form.widths) if form.operands else 1)
    ]


TABLES = pytest.mark.parametrize(("table", "registers"), [(vex.TABLE, 16), (evex.TABLE, 32)], ids=["VEX", "EVEX"])


@TABLES
def test_same_bytes_as_gnu_as(
    program: Callable[[str], str], tmp_path: Path, table: dict[str, tuple[Form, ...]], registers: int
) -> None:
    program("objcopy")
    statements = corpus(table, registers)
    assert len(statements) > 1000
    source = "".join(f"{text}\n.balign {SLOT}, 0xcc\n" for text in statements)
    expected, actual = reference(program("as"), source, 64, ".text", tmp_path), ours(source, ".text")
    assert len(actual) == len(expected) == SLOT * len(statements)
    different = {
        text: (actual[at : at + SLOT].rstrip(b"\xcc").hex(), expected[at : at + SLOT].rstrip(b"\xcc").hex())
        for text, at in zip(statements, range(0, len(actual), SLOT), strict=True)
        if actual[at : at + SLOT] != expected[at : at + SLOT]
    }
    assert different == {}


@TABLES
def test_objdump_reads_the_same_operands(
    program: Callable[[str], str], tmp_path: Path, table: dict[str, tuple[Form, ...]], registers: int
) -> None:
    """The registers and numbers of the source, in its order; addresses differ in spelling."""
    statements = [text for text in corpus(table, registers) if "[" not in text]
    path = tmp_path / "code"
    path.write_bytes(ours("\n".join(statements), ".text"))
    options = ("-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn", "-D")
    shown = subprocess.run([program("objdump"), *options, path], check=True, capture_output=True, text=True).stdout
    rows = [re.sub(r"\s+", " ", row) for row in re.findall(r"^ *[0-9a-f]+:\s+(v.*?) *$", shown, re.MULTILINE)]
    assert len(rows) == len(statements)
    for wanted, found in zip(statements, rows, strict=True):
        mnemonic, _, operands = wanted.partition(" ")
        numbers = [hex(int(part)) if part.isdigit() else part for part in operands.split(", ") if part]
        alternatives = {" ".join((mnemonic, ",".join(numbers))).strip()}
        if mnemonic == "vpclmulqdq" and int(operands.split(", ")[-1]) in {0, 1, 0x10, 0x11}:
            low, high = (("lq", "hq")[int(operands.split(", ")[-1]) >> bit & 1] for bit in (0, 4))
            alternatives.add(f"vpclmul{low}{high}dq {','.join(numbers[:3])}")
        assert found in alternatives


ADDRESSES = """
.equ BEFORE, 64
vpxor ymm1, ymm2, [rip + constant]
vpclmulqdq ymm1, ymm2, [rip + constant + 32], 0x11
vpaddd xmm1, xmm2, [rcx + BEFORE * 2]
vpaddd xmm1, xmm2, [r13 + rcx*8 + BEFORE - 1]
vzeroall
constant: .zero 64
"""


def test_addresses_and_constants(program: Callable[[str], str], tmp_path: Path) -> None:
    assert ours(ADDRESSES, ".text") == reference(program("as"), ADDRESSES, 64, ".text", tmp_path)


def test_a_number_that_depends_on_the_layout_takes_the_widest_form() -> None:
    assert ours("a: vpxor ymm1, ymm2, [rax + b - a]\nb:", ".text").hex() == "c5edef8808000000"
    assert ours("a: vpshufd ymm1, ymm2, b - a\nb:", ".text").hex() == "c5fd70ca05"
    assert ours("a: vpxorq zmm1, zmm2, [rax + b - a]\nb:", ".text").hex() == "62f1ed48ef880a000000"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("vaddps ymm0, ymm1, ymm2", "'vaddps' is none of the VEX and EVEX instructions that are encoded here"),
        ("vpxor ymm0, ymm1", "'vpxor' does not take these operands; its forms are: xmm or ymm, xmm or ymm"),
        ("vpxor ymm0, ymm1, xmm2", "'vpxor' does not take these operands"),
        ("vpxor ymm0, ymm1, xmmword ptr [rax]", "'vpxor' does not take these operands"),
        ("vpxor ymm0, ymm1, rax", "'vpxor' does not take these operands"),
        ("vpxor rax, rax, rax", "'vpxor' does not take these operands"),
        ("vpxor ymm0, [rax], ymm1", "'vpxor' does not take these operands"),
        ("vpxor ymm0, ymm16, ymm1", "'vpxor' cannot take ymm16"),
        ("vpxor ymm0, ymm1, zmm2", "'vpxor' cannot take zmm2"),
        ("vbroadcasti128 ymm0, xmm1", "its forms are: ymm, memory"),
        ("vbroadcasti128 xmm0, [rax]", "'vbroadcasti128' does not take these operands"),
        ("vperm2i128 xmm0, xmm1, xmm2, 1", "'vperm2i128' does not take these operands"),
        ("vzeroall ymm0", "its forms are: none"),
        ("vmovq xmm0, eax", "its forms are: xmm, 64-bit register"),
        ("vmovq rax, xmm0", "'vmovq' does not take these operands"),
        ("vmovq ymm0, rax", "'vmovq' does not take these operands"),
        ("vpinsrq xmm0, xmm1, xmm2, 1", "'vpinsrq' does not take these operands"),
        ("vpshufd ymm0, ymm1, 256", "number 256 does not fit: 0 to 255"),
        ("vmovdqu ymm0, fs:[rax]", "takes no segment register here"),
        ("vmovdqu ymm0, [eax]", "takes 64-bit addresses here"),
        ("vmovdqu ymm0, [rax + 0x80000000]", "displacement 0x80000000 does not fit in 32 bits"),
        ("pxor xmm0, xmm16", "'pxor' cannot take xmm16"),
        ("vpxorq zmm0, zmm1, ymm2", "its forms are: xmm or ymm or zmm, xmm or ymm or zmm, xmm or ymm or zmm or memory"),
        ("vaesenc zmm32, zmm0, zmm0", "'vaesenc' does not take these operands"),
        ("vextracti64x4 xmm0, zmm1, 1", "its forms are: ymm or memory, zmm, number"),
        ("vbroadcasti32x4 zmm0, ymmword ptr [rax]", "its forms are: ymm or zmm, memory"),
        ("pxor ymm0, ymm1", "'pxor' takes no ymm register"),
        (".code32\nvzeroall", "'vzeroall' is for 64-bit code only"),
        ("rep vzeroall", "'rep' cannot stand before this 'vzeroall'"),
    ],
)
def test_refused(source: str, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(source, "t.s")
    assert message in str(caught.value)
