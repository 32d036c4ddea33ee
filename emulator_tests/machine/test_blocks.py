"""Blocks of code that are known to have nothing that is watched: by their bytes, and for what was watched then."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import CODE, KERNEL_SS, PAGE, RW, TEXT, Guest, assemble, run_to_halt
from mh_emulator.cpu import blocks
from mh_emulator.cpu.blocks import Block, Known, Told
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.cpu.registers import Hidden, Segments
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason

ALL = (1 << 64) - 1
COUNT = 20


def jumps(middle: str, label: str) -> str:
    """Blocks one after the other, `middle` in one of them; `label` makes them like those of no other test."""
    chain = "".join(f"jmp {n}f\n{n}: lea rbx, [rbx + {n}]\n" for n in range(1, COUNT))
    return (
        f"movabs rcx, {int.from_bytes(label.encode()[:7], 'little')}\n{chain} jmp 90f\n90: {middle}\n jmp 91f\n91: hlt"
    )


def told(vcpu: Vcpu) -> Told:
    return vcpu._core._told


def run(guest: Guest, text: str) -> Vcpu:
    vcpu = guest.launch(text)
    run_to_halt(vcpu)
    return vcpu


def test_known_on_another_machine() -> None:
    text = jumps("nop", "another")
    first, second = run(Guest(), text), run(Guest(), text)
    assert told(first).answered == 0
    assert told(second).answered >= COUNT
    assert first.get_registers() == second.get_registers()
    assert first.get_registers().rbx == sum(range(1, COUNT))


def test_without_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_native_block", lambda: None)
    text = jumps("in al, dx", "python")
    for _ in range(2):
        vcpu = Guest().launch(text)
        assert vcpu.run().reason is Reason.IO
        assert told(vcpu).any
        assert told(vcpu).answered == 0


@pytest.mark.parametrize("at", ["first", "last"])
def test_another_byte(at: str) -> None:
    """As many instructions and bytes at the same address, but one of them leaves."""
    filler = "nop\n" * 9
    for middle, exit_ in (("mov al, 0x90", Reason.HLT), ("in al, 0x90", Reason.IO), ("mov al, 0x90", Reason.HLT)):
        text = f"{middle}\n {filler}" if at == "first" else f"{filler} {middle}"
        assert Guest().launch(jumps(text, at)).run().reason is exit_


def test_across_pages() -> None:
    """A block begins with the last byte of a page: NOP, IN, and NOP again."""
    place = TEXT + PAGE - 1
    for last, exit_ in ((b"\x90", Reason.HLT), (b"\xec", Reason.IO), (b"\x90", Reason.HLT)):
        guest = Guest()
        guest.contents[place] = last + assemble("hlt")
        vcpu = guest.launch(f"mov ecx, {place}\n jmp 1f\n1: jmp rcx")
        assert vcpu.run().reason is exit_


def test_for_what_was_watched() -> None:
    """RDRAND is of interest on a machine whose generator is broken, and nowhere else."""
    text = jumps("rdrand rax", "watched")
    run(Guest(), text)
    stuck = Guest()
    stuck.platform.generator.fault = FAULTS["stuck"]
    assert run(stuck, text).get_registers().rax == ALL


def test_in_another_mode() -> None:
    """What is a number in 64-bit code is an IN in 32-bit code, of the same bytes at the same address."""
    code = b"\xeb\x00" + b"\x48\xb8" + b"\x90" * 7 + b"\xec" + b"\xeb\x00" + b"\xf4"
    for _ in range(2):
        long, legacy = Guest(), Guest()
        for guest in (long, legacy):
            guest.contents[TEXT] = code
        run_to_halt(long.launch())
        flat = Hidden(0xFFFF_FFFF, 0xC9B)
        vcpu = legacy.launch(cs=0x30, ds=KERNEL_SS, hidden=Segments(cs=flat))
        assert vcpu.run().reason is Reason.IO


def test_code_that_is_changed() -> None:
    """The guest writes IN over a MOV of a block that is known, and comes there again."""
    place = TEXT + len(assemble("mov byte ptr [rdi], dl\n jmp 1f\n1: ")) + len(assemble("nop\n nop\n"))
    text = "mov byte ptr [rdi], dl\n jmp 1f\n1: nop\n nop\n mov al, 0x90\n jmp 2f\n2: hlt"
    for _ in range(2):
        guest = Guest()
        guest.tables.map(TEXT, TEXT, CODE | RW)
        vcpu = guest.launch(text, rdi=place, rdx=0xB0)
        run_to_halt(vcpu)
        vcpu.set_registers(vcpu.get_registers().with_changes(rip=TEXT, rdx=0xE4))
        assert vcpu.run() == Exit(Reason.IO, port=0x90, size=1)


def test_no_room() -> None:
    """What is full takes nothing more, and keeps what it has."""
    known, block = Known(), Block(PAGE, b"\x90" * 5, 5)
    for n in range(50):
        known.add(Block(PAGE, bytes([n]) * 5, 5))
    held = [place.code for place in known._places if place.size]
    assert 0 < len(held) < 50
    known.add(block)
    assert [place.code for place in known._places if place.size] == held
