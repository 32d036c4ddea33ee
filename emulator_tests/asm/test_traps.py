"""What keystone gets wrong without a word, hangs on or dies of: right bytes here, or an error with its place."""

from __future__ import annotations

import pytest

from mh_builder.asm import AssemblyError, assemble_text


def code(source: str) -> str:
    unit = assemble_text(source, "t.s")
    return next(item.data for item in unit.sections if item.name == ".text").hex()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # Expected bytes are those of GNU as 2.40.
        pytest.param(".set A, 16\nmov rax, [rbx + A*2]", "488b4320", id="symbol-times-number-in-address"),
        pytest.param(".set A, 16\nmov rax, [rbx - A]", "488b43f0", id="symbol-subtracted-in-address"),
        pytest.param(".set A, 16\nmov rax, [rbx + 8 - A]", "488b43f8", id="number-minus-symbol-in-address"),
        pytest.param(".set A, 16\nmov rax, [rbx + A*2 + 8]", "488b4328", id="sum-with-symbol-in-address"),
        pytest.param("mov rbx, [0x1000]", "488b1c2500100000", id="absolute-address"),
        pytest.param("mov rbx, fs:[0x1000]", "64488b1c2500100000", id="absolute-address-with-segment"),
        pytest.param("mov rax, gs:[0x10]", "65488b042510000000", id="no-10-byte-form"),
        pytest.param("pshufb xmm0, [0x1000]", "660f380004250010 0000".replace(" ", ""), id="absolute-behind-66"),
        pytest.param("mov dword ptr [0x1000], 5", "c704250010000005000000", id="absolute-before-immediate"),
        pytest.param(".macro f\n1\\@: jmp 1\\@b\n.endm\nf\nf", "ebfeebfe", id="serial-number-of-macro"),
        pytest.param(".code16\nx: jmp x", "ebfe", id="jmp-in-16-bit-code"),
        pytest.param(".code16\nx: .zero 200\njmp x", "00" * 200 + "e935ff", id="far-jmp-in-16-bit-code"),
        pytest.param(".code16\nx: .zero 200\njz x", "00" * 200 + "0f8434ff", id="far-jz-in-16-bit-code"),
        pytest.param(".code16\nx: call x", "e8fdff", id="call-in-16-bit-code"),
        pytest.param(".code16\nret", "c3", id="ret-in-16-bit-code"),
        pytest.param(".code16\nret 2", "c20200", id="ret-count-in-16-bit-code"),
        pytest.param(".code16\npush 5", "6a05", id="push-in-16-bit-code"),
        pytest.param(".code32\nlgdt [eax]", "0f0110", id="lgdt-in-32-bit-code"),
        pytest.param(".code32\nlidt [eax]", "0f0118", id="lidt-in-32-bit-code"),
        pytest.param(".code32\njmpf 8, 0x12345678", "ea785634120800", id="far-jump-in-32-bit-code"),
        pytest.param(".code16\njmpf 8, 0x12345678", "66ea785634120800", id="far-jump-in-16-bit-code"),
        pytest.param(".code32\niret", "cf", id="iret-in-32-bit-code"),
        pytest.param(".code32\npushf", "9c", id="pushf-in-32-bit-code"),
        pytest.param("iretq", "48cf", id="iretq"),
        pytest.param("pushfq\npopfq", "9c9d", id="pushfq-popfq"),
        pytest.param("push 65535", "68ffff0000", id="push-65535"),
        pytest.param("nop dword ptr [rax]", "0f1f00", id="long-nop"),
        pytest.param("nop word ptr [rax + rax]", "660f1f0400", id="long-nop-16"),
        pytest.param("nop word ptr fs:[0]", "64660f1f042500000000", id="long-nop-at-absolute-address"),
        pytest.param(".code16\npush gs\npop fs", "0fa80fa1", id="push-gs-in-16-bit-code"),
        pytest.param("mov ds, ax", "8ed8", id="no-spare-prefix"),
        pytest.param("mov rax, [rbx*2]", "488b045d00000000", id="index-without-base"),
        pytest.param("lea rax, [rbx + rsp]", "488d041c", id="rsp-becomes-the-base"),
        pytest.param("mov rax, [ah_ + 1]", None, id="undefined-name-in-address"),
        pytest.param("nop # c\nret // c", "90c3", id="comments-behind-instructions-without-operands"),
        pytest.param("/* a\n b */ nop /* c */", "90", id="block-comment"),
        pytest.param("movsd\nrep movsd", "a5f3a5", id="movsd-without-operands"),
        pytest.param("rep vmmcall", "f30f01d9", id="rep-vmmcall"),
        pytest.param("retfq", "48cb", id="retfq"),
        pytest.param("sysretq", "480f07", id="sysretq"),
        pytest.param("call fword ptr [rax]", "ff18", id="far-call-through-memory"),
        pytest.param("jmp fword ptr [rax]", "ff28", id="far-jump-through-memory"),
    ],
)
def test_right_bytes(source: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(AssemblyError, match=r"t\.s:1:\d+: error: undefined symbol 'ah_'"):
            code(source)
    else:
        assert code(source) == expected


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        # Silent errors of keystone.
        pytest.param("lea rax, [eip + 5]", "'eip' cannot address memory here", id="eip-as-base"),
        pytest.param("mov rip, rax", "'rip' cannot be an operand", id="rip-as-operand"),
        pytest.param("mov rax, [rsp*2]", "'rsp' cannot be an index register", id="rsp-as-index"),
        pytest.param("mov rax, [rip + rbx]", "an address with 'rip' has no index register", id="rip-with-index"),
        pytest.param("mov al, 300", "number 0x12c does not fit in 8 bits", id="imm-8"),
        pytest.param("mov al, -129", "number -0x81 does not fit in 8 bits", id="imm-8-negative"),
        pytest.param("mov eax, 0x1ffffffff", "number 0x1ffffffff does not fit in 32 bits", id="imm-32"),
        pytest.param("add al, 0x1ff", "number 0x1ff does not fit in 8 bits", id="add-imm-8"),
        pytest.param("mov word ptr [rax], 65536", "number 0x10000 does not fit in 16 bits", id="imm-16"),
        pytest.param("add rax, 0x80000000", "", id="imm-32-sign-extended"),
        pytest.param("mov qword ptr [rax], 0xffffffff", "", id="mov-memory-imm-32-sign-extended"),
        pytest.param("imul eax, ebx, 0x100000000", "", id="imul-imm"),
        pytest.param("shl eax, 256", "", id="shift-count"),
        pytest.param("pshufd xmm0, xmm1, 256", "", id="imm-of-pshufd"),
        pytest.param("int 256", "number 256 does not fit: 0 to 255", id="int-256"),
        pytest.param("ret 65536", "number 65536 does not fit: 0 to 65535", id="ret-65536"),
        pytest.param("ret -1", "number -1 does not fit: 0 to 65535", id="ret-negative"),
        pytest.param("out 256, al", "", id="out-256"),
        pytest.param("mov rax, [rbx + 0x80000000]", "displacement 0x80000000 does not fit in 32 bits", id="disp-31"),
        pytest.param("mov rax, [rbx + 0x100000000]", "displacement 0x100000000 does not fit in 32 bits", id="disp-32"),
        pytest.param("mov rbx, [0x80000000]", "displacement 0x80000000 does not fit in 32 bits", id="absolute-31"),
        pytest.param("push 0x80000000", "number 0x80000000 does not fit: -2147483648 to 2147483647", id="push"),
        pytest.param(".word 65536", "number 65536 does not fit: -32768 to 65535", id="word-65536"),
        pytest.param(".byte 256", "number 256 does not fit: -128 to 255", id="byte-256"),
        pytest.param(".quad 0x10000000000000000", "number does not fit in 64 bits", id="quad-2-64"),
        pytest.param(".quad -0x8000000000000001", "does not fit", id="quad-negative"),
        pytest.param("x: .zero 200\nloop x", "target is -202 bytes away: out of reach, -128 to 127", id="loop-range"),
        pytest.param("x: .zero 200\njrcxz x", "target is -202 bytes away: out of reach, -128 to 127", id="jrcxz-range"),
        pytest.param("call 0x100000000", "'call' takes a label, not a number", id="call-number"),
        pytest.param("jmp 5", "'jmp' takes a label, not a number", id="jmp-number"),
        pytest.param(".section .foo", "unknown section '.foo'", id="unknown-section"),
        pytest.param(".pushsection .data", "unknown directive '.pushsection'", id="pushsection"),
        pytest.param("mov eax, [", "expected an expression, found end of line", id="unclosed-bracket"),
        pytest.param(".if A\n.endif", "'A' is not a number that is known here", id="if-undefined"),
        pytest.param(".err", "unknown directive '.err'", id="err"),
        pytest.param('.error "stop here"', "stop here", id="error"),
        pytest.param(".rept 3\nnop", "'.rept' without '.endr'", id="unclosed-rept"),
        pytest.param('.include "nowhere.inc"', "'.include' needs a directory", id="include"),
        pytest.param("nop\0 rubbish", "character '\\x00' is neither printable ASCII nor a tab", id="nul"),
        pytest.param("nop \u00e9", "character '\u00e9' is neither printable ASCII nor a tab", id="non-ascii"),
        pytest.param("iret", "'iret' returns to 16-bit code here; write 'iretq'", id="iret"),
        pytest.param("pushf", "'pushf' pushes 16 bits here; write 'pushfq'", id="pushf"),
        pytest.param("popf", "'popf' pops 16 bits here; write 'popfq'", id="popf"),
        pytest.param("into", "there is no 'into' in 64-bit code", id="into"),
        pytest.param("ljmp [rax]", "write 'jmpf SELECTOR, ADDRESS', or 'jmp fword ptr", id="ljmp"),
        pytest.param("mov rax, 300 300", "expected end of line, found '300'", id="juxtaposed-numbers"),
        pytest.param("nop; ret", "a statement starts with", id="statement-separator"),
        pytest.param("mov [rax], 5", "the memory operand needs a size", id="store-without-size"),
        pytest.param("inc [rax]", "the memory operand needs a size", id="inc-without-size"),
        pytest.param("shl [rax], cl", "the memory operand needs a size", id="shift-without-size"),
        pytest.param("mov [rax], [rbx]", "cannot encode 'mov' with two memory operands", id="memory-to-memory"),
        pytest.param("movzx eax, [rbx]", "the memory operand needs a size", id="movzx-without-size"),
        pytest.param("mov eax, qword ptr [rbx]", "", id="wrong-size"),
        pytest.param("vaddps xmm0, xmm1, xmm2", "'vaddps' is none of the VEX and EVEX instructions", id="vex"),
        pytest.param("bzhi eax, ebx, ecx", "unicorn executes 'bzhi' wrongly", id="bzhi"),
        pytest.param("movl eax, ebx", "", id="suffixed-mnemonic"),
        pytest.param("sysret", "write 'sysretq'", id="sysret"),
        pytest.param("mov eax, ebx, ecx", "", id="three-operands"),
        pytest.param("mov eax, [rbx + ecx]", "'rbx' and 'ecx' have different widths", id="mixed-address"),
        pytest.param("mov eax, [bx]", "'bx' cannot address memory in 64-bit code", id="16-bit-address"),
        pytest.param(".code32\nmov eax, [rbx]", "'rbx' cannot address memory in 32-bit code", id="rbx-in-32"),
        pytest.param(".code32\nmov r8d, eax", "'r8d' exists in 64-bit code only", id="r8d-in-32"),
        pytest.param(".code16\nmov eax, [rip + 5]", "'rip' addresses memory in 64-bit code only", id="rip-in-16"),
        # What keystone hangs on or dies of.
        pytest.param('.ascii "abc', "unterminated string", id="unterminated-string"),
        pytest.param(", eax", "a statement starts with", id="starts-with-comma"),
        pytest.param("+ 1", "a statement starts with", id="starts-with-plus"),
        pytest.param("* 1", "a statement starts with", id="starts-with-star"),
        pytest.param("(1)", "a statement starts with", id="starts-with-parenthesis"),
        pytest.param("[rax]", "a statement starts with", id="starts-with-bracket"),
        pytest.param("-1", "a statement starts with", id="starts-with-number"),
        pytest.param("*/", "a statement starts with", id="starts-with-comment-end"),
        pytest.param("rep ,", "prefix 'rep' takes one instruction", id="rep-comma"),
        pytest.param("lock [rax]", "prefix 'lock' takes one instruction", id="lock-bracket"),
        pytest.param("gs: nop", "'gs' is a register", id="segment-as-label"),
        pytest.param("mov eax, 5; ret", "unexpected character ';'", id="statement-separator-behind-operands"),
        pytest.param("gs: [rax]", "a statement starts with", id="segment-alone"),
        pytest.param("rep lock movsb", "prefix 'lock' takes one instruction", id="two-prefixes"),
        pytest.param("mov ah, r8b", "'ah' cannot be used together with 'r8b'", id="high-byte-r8b"),
        pytest.param("mov ah, sil", "'ah' cannot be used together with 'sil'", id="high-byte-sil"),
        pytest.param("mov ah, [r8]", "'ah' cannot be used together with 'r8'", id="high-byte-r8-address"),
        pytest.param("movzx rax, ah", "'ah' cannot be used together with 'rax'", id="high-byte-rex-w"),
        pytest.param("mov rax, [ah]", "'ah' cannot address memory in 64-bit code", id="high-byte-address"),
        pytest.param("mov rax, 0x10000000000000000", "number does not fit in 64 bits", id="literal-2-64"),
        pytest.param("lodsq xmmword ptr [rax]", "'lodsq' is written without operands", id="lods-memory"),
        pytest.param("stosw word ptr [rip + 5]", "'stosw' is written without operands", id="stos-memory"),
        pytest.param("xlatb [rbx]", "'xlatb' is written without operands", id="xlatb-memory"),
        pytest.param("rep movsd xmm0, xmm1", "'rep' cannot stand before this 'movsd'", id="rep-movsd-sse"),
        pytest.param("mov cs, ax", "'cs' is loaded by far jumps and returns only", id="mov-cs"),
        pytest.param(".code16\njmp dword ptr [bx]", "'jmp dword ptr' is ambiguous", id="jmp-dword-in-16-bit-code"),
        pytest.param(".code32\nswapgs", "'swapgs' is for 64-bit code only", id="swapgs-in-32-bit-code"),
        pytest.param("lgdt xmmword ptr [rax]", "it takes no size", id="size-of-lgdt"),
        pytest.param("lgdt fword ptr [rax]", "it takes no size", id="fword-size-of-lgdt"),
        pytest.param("lock mov [rax], eax", "'lock' cannot stand before this 'mov'", id="lock-mov"),
        pytest.param("lock add eax, ebx", "'lock' cannot stand before this 'add'", id="lock-register"),
        pytest.param("rep add eax, ebx", "'rep' cannot stand before this 'add'", id="rep-add"),
        pytest.param("repne movsb", "'repne' cannot stand before this 'movsb'", id="repne-movsb"),
        pytest.param("mov eax, offset x\nx:", "'offset' is for", id="offset-32"),
        pytest.param("mov rax, offset 5", "an address is needed here", id="offset-number"),
        pytest.param("x: mov eax, [rbx + x]", "the address of 'x' cannot stand here", id="label-in-address"),
        pytest.param("x: mov eax, x", "the address of 'x' cannot stand here", id="label-as-number"),
        pytest.param(".equ A, 5\nlea rax, [rip + A]", "takes an address", id="rip-number"),
    ],
)
def test_errors(statement: str, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(statement, "t.s")
    (diagnostic,) = caught.value.diagnostics
    line = next(number for number, row in enumerate(statement.split("\n"), 1) if row.strip())
    assert diagnostic.line.number in {line, statement.count("\n") + 1}
    assert 1 <= diagnostic.column <= len(diagnostic.line.text) + 1
    assert message in diagnostic.message
    assert str(diagnostic).startswith(f"t.s:{diagnostic.line.number}:{diagnostic.column}: error: {diagnostic.message}")
