"""Interrupts of devices: when a guest takes them, and what it sleeps for. Source: AMD64 APM volume 2, 8.5 and 15.21."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from emulator_tests.machine.guests import DATA, HANDLERS, IDT, STACK, TEXT, Guest, gate
from mh_emulator.cpu.registers import RFLAGS_IF
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason

VECTOR, OTHER = 0x41, 0x52
OUTSIDE = 0x5000_0000


@dataclass
class Line:
    """Devices that request `vectors`, one after the other: with an access to a port, or in a sleep."""

    vectors: list[int]
    naps: int = 0
    waits: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    asked: int = 0

    def read_port(self, _port: int, _size: int) -> int:
        return self._request()

    def write_port(self, _port: int, _size: int, _value: int) -> None:
        self._request()

    def read_memory(self, _gpa: int, _size: int) -> int:
        return self._request()

    def write_memory(self, _gpa: int, _size: int, _value: int) -> None:
        self._request()

    def count(self) -> int:
        return self._request()

    def vector(self) -> int | None:
        return self.waits[0] if self.waits else None

    def acknowledge(self) -> None:
        self.taken.append(self.waits.pop(0))

    def sleep(self) -> bool:
        if not self.waits and self.naps:
            self.naps -= 1
            self._request()
        return bool(self.waits)

    def _request(self) -> int:
        self.asked += 1
        if self.vectors:
            self.waits.append(self.vectors.pop(0))
        return 0


def launch(text: str, devices: Line, **registers: object) -> tuple[Guest, Vcpu]:
    """Handlers count in r8, and note RFLAGS of what they interrupt in r9."""
    guest = Guest()
    guest.code(HANDLERS, "inc r8\n mov r9, [rsp + 16]\n mov r10, [rsp]\n iretq")
    for vector in (VECTOR, OTHER):
        guest.patch(IDT + 16 * vector, gate(HANDLERS))
    guest.vm.devices = devices
    return guest, guest.launch(text, **registers)


@pytest.mark.parametrize(
    ("access", "asked"),
    [
        ("in al, 0x70", 1),
        ("out 0x70, al", 1),
        ("rdtsc", 1),
        ("mov eax, [rbx]\n rdtsc", 2),
        ("mov [rbx], eax\n rdtsc", 2),
        ("add [rbx], eax\n rdtsc", 3),
    ],
)
def test_a_guest_is_interrupted_behind_its_access(access: str, asked: int) -> None:
    """Each access is one: a load that is stopped for an interrupt would be two."""
    devices = Line([VECTOR])
    guest = Guest()
    guest.code(HANDLERS, "inc r8\n mov r10, [rsp]\n iretq")
    guest.patch(IDT + 16 * VECTOR, gate(HANDLERS))
    guest.tables.map(OUTSIDE, OUTSIDE, DATA)
    guest.vm.devices = devices
    vcpu = guest.launch(f"sti\n nop\n {access}\n jmp 1f\n1: nop\n hlt", rbx=OUTSIDE, r8=0)
    assert vcpu.run() == Exit(Reason.HLT)
    assert (vcpu.get_registers().r8, devices.taken, devices.asked) == (1, [VECTOR], asked)
    assert vcpu.get_registers().r10 > TEXT + 2


def test_it_waits_while_interrupts_are_off() -> None:
    devices = Line([VECTOR])
    text = "out 0x70, al\n jmp 1f\n1: mov r11, r8\n sti\n nop\n out 0x70, al\n jmp 2f\n2: hlt"
    _, vcpu = launch(text, devices, r8=0)
    assert vcpu.run() == Exit(Reason.HLT)
    state = vcpu.get_registers()
    assert (state.r11, state.r8) == (0, 1)
    assert state.r9 & RFLAGS_IF


def test_not_between_sti_and_hlt() -> None:
    """Else a kernel that looks for work before it sleeps would sleep with work to do."""
    devices = Line([VECTOR])
    _, vcpu = launch("out 0x70, al\n sti\n hlt\n cli\n hlt", devices, r8=0)
    assert vcpu.run() == Exit(Reason.HLT)
    state = vcpu.get_registers()
    assert (state.r8, state.r10) == (1, TEXT + 4)


def test_a_guest_sleeps_as_long_as_something_comes() -> None:
    devices = Line([VECTOR, OTHER, VECTOR], naps=3)
    _, vcpu = launch("1: sti\n hlt\n jmp 1b", devices, r8=0)
    assert vcpu.run() == Exit(Reason.HLT)
    assert (vcpu.get_registers().r8, devices.taken) == (3, [VECTOR, OTHER, VECTOR])


def test_with_interrupts_off_it_does_not_wake() -> None:
    devices = Line([VECTOR], naps=1)
    _, vcpu = launch("cli\n hlt", devices, r8=0)
    assert vcpu.run() == Exit(Reason.HLT)
    assert (vcpu.get_registers().r8, devices.taken, devices.naps) == (0, [], 1)


def test_a_limit_of_instructions_holds() -> None:
    devices = Line([VECTOR])
    _, vcpu = launch("sti\n nop\n out 0x70, al\n jmp 1f\n1: jmp 1b", devices, r8=0)
    assert vcpu.run(50) == Exit(Reason.LIMIT)
    assert vcpu.get_registers().r8 == 1
    assert STACK - vcpu.get_registers().rsp in (0, 40)


def test_not_in_the_shadow_of_sti() -> None:
    """Also where the guest was stopped between the two."""
    devices = Line([])
    _, vcpu = launch("sti\n hlt\n cli\n hlt", devices, r8=0)
    assert vcpu.run(1) == Exit(Reason.LIMIT)
    devices.waits.append(VECTOR)
    assert vcpu.run() == Exit(Reason.HLT)
    assert (vcpu.get_registers().r8, vcpu.get_registers().r10) == (1, TEXT + 2)


def test_an_sev_es_guest_is_woken_between_sti_and_the_next_instruction() -> None:
    """HLT leaves it by itself, and RDTSC not at all: it has the count of the devices' time."""
    devices = Line([VECTOR], naps=1)
    guest = Guest(es=True)
    guest.code(HANDLERS, "inc r8\n mov r10, [rsp]\n iretq")
    guest.patch(IDT + 16 * VECTOR, gate(HANDLERS))
    guest.vm.devices = devices
    vcpu = guest.launch("mov rdx, -1\n sti\n hlt\n cli\n rdtsc\n hlt", r8=0)
    assert vcpu.run() == Exit(Reason.HLT)
    state = guest.inside(vcpu)
    assert (state.r8, state.r10, devices.taken, devices.asked) == (1, TEXT + 9, [VECTOR], 2)
    assert (state.rax, state.rdx) == (0, 0)
