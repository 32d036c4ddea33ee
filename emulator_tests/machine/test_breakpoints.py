"""KVM_SET_GUEST_DEBUG with an address, and a host that wants its CPU back with an interrupt. Source: api.rst; x86.c."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

import pytest

from emulator_tests.machine.guests import HANDLERS, IDT, TEXT, Guest, fails, gate, run_to_halt
from emulator_tests.machine.test_interrupts import Line
from mh_emulator.cpu.registers import RFLAGS_IF
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason

VECTOR = 0x41
COUNTS = "mov ecx, 3\n1: inc rax\n dec ecx\n jnz 1b\n hlt"
LOOP = TEXT + 5


def test_the_guest_leaves_before_the_instruction() -> None:
    guest = Guest()
    vcpu = guest.launch(COUNTS, rax=0)
    vcpu.set_guest_debug(LOOP)
    assert vcpu.run() == Exit(Reason.DEBUG)
    state = vcpu.get_registers()
    assert (state.rip, state.rax, state.rcx) == (LOOP, 0, 3)
    # As on hardware it is still there; without it the guest goes on.
    assert vcpu.run() == Exit(Reason.DEBUG)
    assert vcpu.get_registers() == state
    vcpu.set_guest_debug(None)
    assert run_to_halt(vcpu).rax == 3


def test_code_that_was_executed_before_stops_too() -> None:
    guest = Guest()
    guest.vm.devices = Line([])
    vcpu = guest.launch("mov ecx, 3\n1: inc rax\n dec ecx\n jnz 1b\n hlt\n mov ecx, 2\n jmp 1b", rax=0)
    assert run_to_halt(vcpu).rax == 3
    for address in (TEXT, LOOP):
        vcpu.set_guest_debug(address)
    assert vcpu.run() == Exit(Reason.DEBUG)
    assert (vcpu.get_registers().rip, vcpu.get_registers().rax) == (LOOP, 3)


def test_it_is_where_a_trapped_instruction_is() -> None:
    """The breakpoint comes before what the instruction itself would be."""
    guest = Guest()
    vcpu = guest.launch("nop\n hlt")
    vcpu.set_guest_debug(TEXT + 1)
    assert vcpu.run() == Exit(Reason.DEBUG)
    assert vcpu.get_registers().rip == TEXT + 1


def test_an_encrypted_vcpu_has_none() -> None:
    guest = Guest(es=True)
    vcpu = guest.launch()
    with fails(errno.EINVAL, "KVM_SET_GUEST_DEBUG"):
        vcpu.set_guest_debug(TEXT)


@dataclass
class Wanting(Line):
    """Devices of a host that wants the CPU of `vcpu` when it takes an interrupt."""

    vcpus: list[Vcpu] = field(default_factory=list)

    def acknowledge(self) -> None:
        super().acknowledge()
        for vcpu in self.vcpus:
            vcpu.kick()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_kick_with_an_interrupt_leaves_the_vcpu_at_its_handler(*, wanted: bool) -> None:
    guest, devices = Guest(), Wanting([VECTOR])
    guest.code(HANDLERS, "inc r8\n iretq")
    guest.patch(IDT + 16 * VECTOR, gate(HANDLERS))
    guest.vm.devices = devices
    vcpu = guest.launch("sti\n nop\n rdtsc\n nop\n hlt", r8=0)
    if wanted:
        devices.vcpus.append(vcpu)
        assert vcpu.run() == Exit(Reason.LIMIT)
        state = vcpu.get_registers()
        assert (state.rip, state.r8, state.rflags & RFLAGS_IF) == (HANDLERS, 0, 0)
    assert run_to_halt(vcpu).r8 == 1
