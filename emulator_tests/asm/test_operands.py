"""Addresses as they may be written, interrupt gates, and the verification's own answers."""

from __future__ import annotations

import pytest

from mh_builder.asm import AssemblyError, Relocation, RelocationKind, assemble_text, verify
from mh_builder.asm.diagnostics import Line
from mh_builder.asm.encoder import Decoded, Encoding, Request
from mh_builder.asm.expression import Cursor
from mh_builder.asm.instruction import Candidate, Pending
from mh_builder.asm.lexer import tokenize
from mh_builder.asm.operands import parse_operands


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("4*rcx + rbx", "488b048b"),
        ("rbx + (rcx*(2 + 2)) - (8 - 4)", "488b448bfc"),
        ("5 + rbx", "488b4305"),
        ("+rbx - 5 + 3", "488b43fe"),
        ("rbx - (5 - rcx)", "488b440bfb"),
        ("rcx*1", "488b01"),
        ("rbx + rcx*1", "488b040b"),
    ],
)
def test_addresses(address: str, expected: str) -> None:
    assert assemble_text(f"mov rax, [{address}]", "t.s").sections[0].data.hex() == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("mov rax, [rbx - rcx]", "a register cannot be subtracted"),
        ("mov rax, [rbx + rcx*3]", "a scale is 1, 2, 4 or 8"),
        ("mov rax, [rbx + rcx*x]\nx:", "a scale is 1, 2, 4 or 8"),
        ("mov rax, [rbx*rcx]", "register 'rcx' cannot be part of an expression"),
        ("mov rax, [-rbx]", "register 'rbx' can only be added, or scaled by a number"),
        ("mov rax, [rax + rbx + rcx]", "an address has at most a base and one index register"),
        ("mov rax, [rbx*2 + rcx*2]", "an address has at most a base and one index register"),
        ("mov rax, [xmm0]", "'xmm0' cannot address memory in 64-bit code"),
        ("mov rax, [cs]", "'cs' cannot address memory in 64-bit code"),
        (".code16\nmov ax, [bx + bp]", "a 16-bit address is bx or bp, plus si or di, without a scale"),
        (".code16\nmov ax, [bx + si*2]", "a 16-bit address is bx or bp, plus si or di, without a scale"),
        (".code16\ncall fword ptr [bx]", "far branches through memory are for 32-bit and 64-bit code"),
        ("mov ymm0, rax", "'mov' takes no ymm register"),
        ("mov zmm0, rax", "'mov' cannot take zmm0"),
        ("mov rax, -0x8000000000000001", "number does not fit in 64 bits"),
        ("mov " + ", ".join(["rax"] * 60), "instruction is too long"),
        ("mov rax, qword [rbx]", "expected end of line, found '['"),
        ("jmp short x\nx:", "expected end of line, found 'x'"),
        ("#" * 5000, "line is longer than 4096 characters"),
        (".byte " + "1," * 2500 + "1", "line is longer than 4096 characters"),
    ],
)
def test_errors(statement: str, expected: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(statement, "t.s")
    assert expected in caught.value.diagnostics[0].message


def test_gate() -> None:
    unit = assemble_text(".data\n.extern handler\n.gate handler, 8, 1", "t.s")
    assert unit.sections[-1].data.hex() == "00000800018e" + "00" * 10
    assert unit.sections[-1].relocations == (Relocation(0, RelocationKind.GATE, "handler", 0, "t.s:3"),)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (".gate 5, 8, 0", "an address is needed here, not a number"),
        ("x: .gate x, 65536, 0", "selector 65536 does not fit: 0 to 65535"),
        ("x: .gate x, 8, 8", "IST index 8 does not fit: 0 to 7"),
    ],
)
def test_gate_errors(statement: str, expected: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(f".data\n{statement}", "t.s")
    assert caught.value.diagnostics[0].message == expected


@pytest.mark.parametrize(
    ("mnemonic", "operands", "decoded", "expected"),
    [
        pytest.param("mov", "rax, [rbx + 8]", ["mov rax, qword ptr [rbx + 8]"], "", id="right"),
        pytest.param("sal", "eax, 1", ["shl eax, 1"], "", id="alias"),
        pytest.param("setc", "al", ["setb al"], "", id="condition"),
        pytest.param("cmovnbe", "eax, ebx", ["cmova eax, ebx"], "", id="conditional-move"),
        pytest.param("mov", "rax, fs:[rbx]", ["mov rax, qword ptr [rbx]"], "segment register is lost", id="segment"),
        pytest.param("mov", "rax, ds:[rbx]", ["mov rax, qword ptr [rbx]"], "", id="default-segment"),
        pytest.param("mov", "rax, [rbx*2]", ["mov rax, qword ptr [rbx]"], "registers are lost", id="scale"),
        pytest.param("mov", "rax, [rbx + rsp]", ["mov rax, qword ptr [rbx + riz]"], "cannot read back", id="index"),
        pytest.param("mov", "rax, [5]", ["mov rax, qword ptr [rip + 5]"], "registers are lost", id="became-relative"),
        pytest.param("mov", "rax, [rbx + 8]", ["mov rax, qword ptr [rbx - 8]"], "displacement is lost", id="sign"),
        pytest.param("mov", "rax, rbx", ["mov rax, rcx"], "register 'rbx' is lost", id="register"),
        pytest.param("mov", "rax, rbx", ["mov rax, qword ptr [rbx]"], "the operands do not fit", id="kind"),
        pytest.param("mov", "eax, 0x1ffffffff", ["mov eax, -1"], "does not fit in 32 bits", id="truncated"),
        pytest.param("add", "rax, 0x80000000", ["add rax, -0x80000000"], "cannot be encoded here", id="extended"),
        pytest.param("mov", "rax, rbx", ["mov rax, rbx, rcx"], "would become", id="number-of-operands"),
        pytest.param("mov", "rax, rbx", ["movzx rax, rbx"], "'mov' would become 'movzx'", id="mnemonic"),
        pytest.param("mov", "rax, rbx", ["mov rax, rbx", "nop "], "not encode to one instruction", id="two"),
        pytest.param("mov", "rax, rbx", [], "not encode to one instruction", id="none"),
        pytest.param("mov", "rax, dword ptr [rbx]", ["mov rax, qword ptr [rbx]"], "has 64 bits, not 32", id="size"),
    ],
)
def test_verification(mnemonic: str, operands: str, decoded: list[str], expected: str) -> None:
    parsed = parse_operands(Cursor(tokenize(operands, 0)), lambda name: name)
    candidate = Candidate(Request(64, ""), parsed, ())
    pending = Pending(Line("t.s", 1, ""), 1, 64, mnemonic, b"", (candidate,))
    pairs = [text.split(" ", 1) for text in decoded]
    items = tuple(Decoded(name, rest, 1, 0, 0, 0) for name, rest in pairs)
    complaint = verify.complaint(pending, candidate, Encoding(bytes(max(1, len(items))), items))
    # Two instructions of one byte are two: the first does not fill the code.
    assert expected in complaint
    assert bool(expected) == bool(complaint)
