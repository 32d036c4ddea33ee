"""State that moves from one vCPU to another."""

from __future__ import annotations

import math
import random
import struct

import pytest

from emulator_tests.machine.guests import (
    HANDLERS,
    HEAP,
    IDT,
    PAGE,
    Guest,
    caught,
    gate,
    run_to_halt,
)
from mh_emulator.cpu.eventinj import EventInjection, Kind
from mh_emulator.cpu.registers import X87, Registers
from mh_emulator.kvm.exits import Exit, Reason

VALUE = 0x1122_3344_5566_7788

BUSY = """
again:
    imul rax, rax, 0x6255
    add rax, 0x3619
    movq xmm1, rax
    paddq xmm0, xmm1
    pxor xmm15, xmm0
    mov rdx, rax
    and edx, 0xff8
    add [rdi + rdx], rax
    rol r11, 7
    adc r11, rdx
    loop again
    hlt
"""


@pytest.mark.parametrize("cut", [1, 10, 11, 997, 5000])
def test_a_guest_moved_in_the_middle_of_its_work_ends_the_same(cut: int) -> None:
    straight = Guest()
    expected = run_to_halt(straight.launch(BUSY, rdi=HEAP, rcx=1000))
    guest = Guest()
    first = guest.launch(BUSY, rdi=HEAP, rcx=1000)
    assert first.run(cut) == Exit(Reason.LIMIT)
    second = guest.vm.create_vcpu()
    second.set_registers(first.get_registers())
    assert run_to_halt(second) == expected
    assert guest.private(HEAP, PAGE) == straight.private(HEAP, PAGE)


def test_every_register_survives_a_round_trip() -> None:
    rng = random.Random(5)
    names = [f"r{n}" for n in range(8, 16)] + ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
    guest = Guest()
    state = guest.registers(
        **{name: rng.getrandbits(64) for name in names},
        **{name: rng.getrandbits(47) for name in ("fs_base", "gs_base", "kernel_gs_base", "lstar", "cr2")},
        xmm=tuple(rng.getrandbits(128) for _ in range(16)),
        x87=X87(0x027F, 0x3800, 0b1000_0101, tuple(rng.getrandbits(80) for _ in range(8))),
        mxcsr=0x1FA0, rflags=0x40AD7, star=0x001B_0008 << 32, sfmask=0x4_7700, ds=0x1B, es=0x10, fs=0x1B, gs=0x23,
    )  # fmt: skip
    first, second = guest.vm.create_vcpu(), guest.vm.create_vcpu()
    first.set_registers(state)
    assert first.get_registers() == state
    second.set_registers(first.get_registers())
    assert second.get_registers() == state


def test_flags_that_the_engine_computes_late_are_carried() -> None:
    guest = Guest()
    first = guest.launch(
        "std\n mov al, 0x7f\n add al, 1\n hlt\n seto bl\n sets cl\n mov rdi, rsi\n lodsb\n hlt", rsi=HEAP + 8
    )
    state = run_to_halt(first)
    second = guest.vm.create_vcpu()
    second.set_registers(state)
    end = run_to_halt(second)
    assert (end.rbx & 0xFF, end.rcx & 0xFF, end.rsi) == (1, 1, HEAP + 7)


def test_user_mode_moves_too() -> None:
    guest = Guest()
    guest.code(0x7_0000, "again: inc rax\n jmp again")
    first = guest.launch("", rip=0x7_0000, cs=0x23, ss=0x1B, rsp=0x7_8000)
    assert first.run(10) == Exit(Reason.LIMIT)
    second = guest.vm.create_vcpu()
    second.set_registers(first.get_registers().with_changes(rip=HEAP))
    fault = caught(second)
    assert (fault.vector, fault.error_code, fault.cs) == (14, 0b10101, 0x23)


def test_registers_default_to_the_documented_start() -> None:
    state = Registers.long_mode(0x1000, 0x2000, 0x3000)
    assert (state.rip, state.rsp, state.cr3, state.cs & 3, state.rflags) == (0x1000, 0x2000, 0x3000, 0, 2)
    assert (state.cr0, state.cr4, state.efer) == (0x8001_0033, 0x620, 0xD01)


@pytest.mark.parametrize("es", [False, True], ids=["sev", "sev-es"])
def test_mmx_registers_stay(*, es: bool) -> None:
    """Over HLT, a stop in the middle, an event, another vCPU's run, and a host that sets all that it read."""
    guest = Guest(es=es)
    guest.code(HANDLERS + 0x800, "inc r15\n iretq")
    guest.patch(IDT + 16 * 40, gate(HANDLERS + 0x800))
    vcpu = guest.launch("movq mm7, rax\n hlt\n movq rbx, mm7\n nop\n nop\n movq rcx, mm7\n hlt", rax=VALUE)
    assert vcpu.run() == Exit(Reason.HLT)
    if not es:
        other = guest.vm.create_vcpu()
        other.set_registers(guest.registers(rax=5))
        assert other.run() == Exit(Reason.HLT)
        vcpu.set_registers(vcpu.get_registers())
    vcpu.inject_event(EventInjection(Kind.INTR, 40))
    assert vcpu.run(4) == Exit(Reason.LIMIT)
    assert vcpu.run() == Exit(Reason.HLT)
    state = guest.inside(vcpu) if es else vcpu.get_registers()
    assert (state.rbx, state.rcx, state.r15) == (VALUE, VALUE, 1)
    assert state.x87.registers[7] % (1 << 64) == VALUE
    assert state.x87.used == 0xFF


def test_x87_moves() -> None:
    """The stack's top too, and the rounding that the guest has chosen."""
    guest = Guest()
    before = "fldcw word ptr [rsi]\n fldpi\n fld1\n hlt\n"
    after = "faddp\n fstp qword ptr [rsi]\n fnstcw word ptr [rsi + 8]\n fnstsw ax\n hlt"
    first = guest.launch(before + after, rsi=HEAP)
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(HEAP), b"\x7f\x0f")
    run_to_halt(first)
    second = guest.vm.create_vcpu()
    second.set_registers(first.get_registers())
    state = run_to_halt(second)
    assert guest.private(HEAP, 10) == struct.pack("<dH", math.pi + 1, 0x0F7F)
    assert (state.rax & 0x3800, state.x87.used) == (0, 0)
