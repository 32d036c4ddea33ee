"""The object model: sections, symbols and relocations."""

from __future__ import annotations

import pytest

from mh_builder.asm import AssemblyError, ObjectFile, Relocation, RelocationKind, Section, Symbol, assemble_text


def section(unit: ObjectFile, name: str) -> Section:
    return next(item for item in unit.sections if item.name == name)


def relocation(source: str, **symbols: int | str) -> Relocation:
    unit = assemble_text(source, "t.s", symbols=symbols)
    (found,) = (item for part in unit.sections for item in part.relocations)
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(".extern f\ncall f", (1, RelocationKind.REL32, "f", -4), id="call"),
        pytest.param(".extern f\njmp f + 3", (1, RelocationKind.REL32, "f", -1), id="jmp"),
        pytest.param(".extern f\njz f", (2, RelocationKind.REL32, "f", -4), id="jcc"),
        pytest.param(".extern f\nlea rax, [rip + f + 8]", (3, RelocationKind.REL32, "f", 4), id="rip"),
        pytest.param(".extern f\nmov dword ptr [rip + f], 7", (2, RelocationKind.REL32, "f", -8), id="rip-imm32"),
        pytest.param(".extern f\npalignr xmm0, [rip + f], 8", (5, RelocationKind.REL32, "f", -5), id="rip-imm8"),
        pytest.param(".extern f\nlock inc dword ptr [rip + f]", (3, RelocationKind.REL32, "f", -4), id="rip-lock"),
        pytest.param(".extern f\nmov r9, offset f + 2", (2, RelocationKind.ABS64, "f", 2), id="offset"),
        pytest.param(".code32\n.extern f\nmov esi, offset f", (1, RelocationKind.ABS32, "f", 0), id="offset32"),
        pytest.param(".code32\n.extern f\njmpf 8, f + 1", (1, RelocationKind.ABS32, "f", 1), id="jmpf32"),
        pytest.param(".code16\n.extern f\njmpf 8, f", (2, RelocationKind.ABS32, "f", 0), id="jmpf16"),
        pytest.param("nop\nx: .quad x - 5", (1, RelocationKind.ABS64, "x", -5), id="quad"),
        pytest.param("nop\nx: .long x", (1, RelocationKind.ABS32, "x", 0), id="long"),
        pytest.param("nop\nx: .pquad x + 0x23", (1, RelocationKind.PRIVATE64, "x", 0x23), id="pquad"),
        pytest.param(".rodata\nx: .byte 1\n.text\nmovzx eax, byte ptr [rip + x]", None, id="no-directive"),
        pytest.param(".data\nx: .byte 1\n.text\nmov al, [rip + x]", (2, RelocationKind.REL32, "x", -4), id="local"),
        pytest.param(".data\n1: .byte 1\n.text\nmov al, [rip + 1b]", (2, RelocationKind.REL32, "1@1", -4), id="number"),
    ],
)
def test_relocations(source: str, expected: tuple[int, RelocationKind, str, int] | None) -> None:
    if expected is None:
        with pytest.raises(AssemblyError, match=r"t\.s:1:1: error: unknown directive '\.rodata'"):
            assemble_text(source, "t.s")
        return
    found = relocation(source)
    assert (found.offset, found.kind, found.symbol, found.addend) == expected
    assert found.place == f"t.s:{source.count(chr(10)) + 1}"


def test_sections_and_symbols() -> None:
    unit = assemble_text(
        ".global main, K\n.equ K, 7\nnop\nmain: ret\n.Lx: .section .rodata\n.balign 16\nr: .byte 1\n"
        ".bss\n.zero 3\n.balign 64\nb: .zero 5\n",
        "t.s",
    )
    assert [item.name for item in unit.sections] == [".text", ".rodata", ".bss"]
    assert section(unit, ".text").data == b"\x90\xc3"
    assert (section(unit, ".rodata").align, section(unit, ".rodata").data) == (16, b"\x01")
    bss = section(unit, ".bss")
    assert (bss.data, bss.size, bss.align) == (b"", 69, 64)
    assert unit.symbols == (
        Symbol("main", ".text", 1, is_global=True),
        Symbol(".Lx", ".text", 2, is_global=False),
        Symbol("r", ".rodata", 0, is_global=False),
        Symbol("b", ".bss", 64, is_global=False),
        Symbol("K", None, 7, is_global=True),
    )


def test_undefined_lists_used_externs() -> None:
    unit = assemble_text(".extern used, unused, here\ncall used\nhere: call here", "t.s")
    assert unit.undefined == ("used",)
    assert section(unit, ".text").relocations[0].symbol == "used"


def test_same_section_needs_no_relocation() -> None:
    unit = assemble_text(".global x\nlea rax, [rip + x]\njmp x\nx: ret", "t.s")
    assert section(unit, ".text").relocations == ()
    assert section(unit, ".text").data.hex() == "488d0502000000eb00c3"
