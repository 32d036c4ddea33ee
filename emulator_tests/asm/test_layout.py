"""Branch relaxation and values that depend on the layout."""

from __future__ import annotations

import random

import capstone
import pytest

from mh_builder.asm import AssemblyError, ObjectFile, assemble_text


def text(unit: ObjectFile) -> bytes:
    return unit.sections[0].data


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("jmp x\n.zero 127\nx:", "eb7f", id="short-forward"),
        pytest.param("jmp x\n.zero 128\nx:", "e980000000", id="near-forward"),
        pytest.param("jz x\n.zero 128\nx:", "0f8480000000", id="near-condition"),
        pytest.param("jmp x\njmp y\n.zero 120\nx: .zero 4\ny:", "eb7aeb7c", id="both-short"),
        pytest.param("jmp x\njmp y\n.zero 123\nx: .zero 4\ny:", "eb7deb7f", id="both-just-short"),
        pytest.param("jmp x\njmp y\n.zero 124\nx: .zero 4\ny:", "e981000000e980000000", id="one-grows-the-other"),
        pytest.param("jmp x + 2\nx: nop\nnop", "eb02", id="label-plus-number"),
        pytest.param("jmp .", "ebfe", id="place"),
        pytest.param("jmp . + 2", "eb00", id="place-plus-number"),
        pytest.param("jecxz x\nx:", "67e300", id="jecxz"),
        pytest.param("loopne x\nx:", "e000", id="loopne"),
        pytest.param("mov ecx, y - x\nx: .zero 5\ny:", "b905000000", id="difference-as-immediate"),
        pytest.param("add rax, y - x\nx: .zero 5\ny:", "480505000000", id="difference-in-its-widest-form"),
        pytest.param("mov al, y - x\nx: .zero 5\ny:", "b005", id="difference-as-byte"),
        pytest.param("shl eax, y - x\nx: .zero 5\ny:", "c1e005", id="difference-as-shift-count"),
        pytest.param("mov ax, y - x\nx: .zero 5\ny:", "66b80500", id="difference-as-word"),
        pytest.param("mov eax, [rbx + y - x]\nx: .zero 5\ny:", "8b8305000000", id="difference-in-address"),
        pytest.param("mov eax, [y - x]\nx: .zero 5\ny:", "8b042505000000", id="difference-as-address"),
        pytest.param(".code16\nlgdt cs:[y - x]\nx: .zero 5\ny:", "2e0f01160500", id="difference-in-16-bit-code"),
        pytest.param(
            "mov dword ptr [rbx + y - x], y - x\nx: .zero 5\ny:", "c7830500000005000000", id="difference-twice"
        ),
        pytest.param("mov ecx, LATER\n.equ LATER, 5", "b905000000", id="equ-behind-its-use"),
        pytest.param("mov eax, A\n.equ A, 0xffffffff", "b8ffffffff", id="equ-behind-its-use-unsigned"),
        pytest.param("push y - x\nx: .zero 5\ny:", "6805000000", id="push-difference"),
        pytest.param("int y - x\nx: .zero 5\ny:", "cd05", id="int-difference"),
        pytest.param("nop\n.balign 4\nret", "90909090c3", id="text-is-padded-with-nops"),
        pytest.param("nop\n.balign 4, 0xcc\nret", "90ccccccc3", id="given-padding"),
        pytest.param("x: nop\n.zero 4 - (. - x)", "90000000", id="fill-up"),
        pytest.param("1: jmp 1f\n1: jmp 1b\njmp 1f\n1:", "eb00ebfeeb00", id="numbers"),
    ],
)
def test_bytes(source: str, expected: str) -> None:
    assert text(assemble_text(source, "t.s")).hex().startswith(expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("mov al, y - x\nx: .zero 256\ny:", "number 256 does not fit: -128 to 255"),
        ("mov rax, A\n.equ A, 0x80000000", "number 0x80000000 does not fit: -2147483648 to 2147483647"),
        ("add rax, [rbx + x - y]\nx: .zero 5\ny: mov al, y - z\nz:", None),
        ("x: mov eax, [rbx + 0x7fffffff + y - x]\ny:", "does not fit: -2147483648 to 2147483647"),
        ("mov rax, x\nx:", "the address of 'x' cannot stand here"),
        (".code16\n.extern x\ncall x", "'x' is in another section or file: out of reach here"),
        (".extern x\nloop x", "'x' is in another section or file: out of reach here"),
        ("x: .zero 40000\n.code16\njmp x", "target is -40003 bytes away: out of reach, -32768 to 32767"),
        ("jmp y - x\nx:\ny:", "a branch takes a label, not a number"),
        ("mov dword ptr [rax], y - x, y - x\nx:\ny:", "only one immediate may depend on the layout"),
        (".code64\njmpf 8, 5", "there is no 'jmpf' to an immediate address in 64-bit code"),
        (".code32\njmpf 8", "write 'jmpf SELECTOR, ADDRESS'"),
    ],
)
def test_errors(source: str, expected: str | None) -> None:
    if expected is None:
        assert text(assemble_text(source, "t.s"))[:7].hex() == "480383fbffffff"
        return
    with pytest.raises(AssemblyError) as caught:
        assemble_text(source, "t.s")
    (diagnostic,) = caught.value.diagnostics
    assert expected in diagnostic.message


@pytest.mark.parametrize("seed", range(5))
def test_every_branch_hits_its_label_among_alignments(seed: int) -> None:
    chance = random.Random(seed)
    targets = [chance.randrange(150) for _ in range(150)]
    rows = [
        f"l{number}: jmp l{target}\n" + "nop\n" * chance.randint(0, 6) + f".balign {chance.choice([1, 1, 8, 32])}"
        for number, target in enumerate(targets)
    ]
    unit = assemble_text("\n".join(rows), "t.s")
    places = {symbol.name: symbol.value for symbol in unit.symbols}
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    jumps = [item for item in decoder.disasm(text(unit), 0) if item.mnemonic == "jmp"]
    assert [(item.address, int(item.op_str, 16)) for item in jumps] == [
        (places[f"l{number}"], places[f"l{target}"]) for number, target in enumerate(targets)
    ]
    assert {item.size for item in jumps} == {2, 5}
