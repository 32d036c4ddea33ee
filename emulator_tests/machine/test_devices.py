"""Ports and memory of devices in a plain guest, and what looking for instructions costs."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from emulator_tests.machine.guests import CODE, HANDLERS, HEAP, HEAP_WORD, PAGE, RW, TEXT, Guest, assemble, run_to_halt
from mh_emulator.cpu.locked import NotEmulatedError
from mh_emulator.cpu.traps import MANY_HOOKS
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.q35.interrupts import Silent

DEVICE, ABOVE = 0xFEE0_0000, 1 << 33
LOW = 0xFFFF_FFFF
INPUT = 0x8877_6655_4433_2211


@dataclass
class Recorder(Silent):
    """Devices that give INPUT and note all that is asked."""

    asked: list[tuple[str, int, int, int]] = field(default_factory=list)
    time: int = 0

    def read_port(self, port: int, size: int) -> int:
        self.asked.append(("in", port, size, 0))
        return INPUT & (1 << 8 * size) - 1

    def write_port(self, port: int, size: int, value: int) -> None:
        self.asked.append(("out", port, size, value))

    def read_memory(self, gpa: int, size: int) -> int:
        self.asked.append(("load", gpa, size, 0))
        return INPUT & (1 << 8 * size) - 1

    def write_memory(self, gpa: int, size: int, value: int) -> None:
        self.asked.append(("store", gpa, size, value))

    def count(self) -> int:
        self.time += 5
        return self.time


@pytest.fixture
def guest() -> Guest:
    guest = Guest()
    guest.vm.devices = Recorder()
    for va in (DEVICE, ABOVE):
        guest.tables.map(va, va, CODE | RW, private=False)
    return guest


def asked(guest: Guest) -> list[tuple[str, int, int, int]]:
    assert isinstance(guest.vm.devices, Recorder)
    return guest.vm.devices.asked


def test_ports_are_answered_without_an_exit(guest: Guest) -> None:
    code = """
        in al, 0x70
        mov rbx, rax
        mov edx, 0x511
        in ax, dx
        mov rcx, rax
        in eax, dx
        out dx, eax
        mov al, 0x99
        out 0x71, al
        hlt
    """
    end = run_to_halt(guest.launch(code, rax=0xAABB_CCDD_EEFF_0099))
    assert (end.rbx, end.rcx & 0xFFFF) == (0xAABB_CCDD_EEFF_0011, 0x2211)
    assert asked(guest) == [
        ("in", 0x70, 1, 0), ("in", 0x511, 2, 0), ("in", 0x511, 4, 0), ("out", 0x511, 4, 0x4433_2211),
        ("out", 0x71, 1, 0x99),
    ]  # fmt: skip


def test_string_input_fills_memory(guest: Guest) -> None:
    run_to_halt(guest.launch("mov edx, 0x511\n mov ecx, 9\n rep insb\n hlt", rdi=HEAP))
    assert guest.private(HEAP, 10) == b"\x11" * 9 + HEAP_WORD.to_bytes(8, "little")[1:2]
    assert asked(guest) == [("in", 0x511, 1, 0)] * 9


def test_memory_without_a_slot_is_the_devices(guest: Guest) -> None:
    """Eight bytes are asked for in two pieces."""
    code = f"""
        mov rsi, {DEVICE}
        mov rax, [rsi + 8]
        mov bl, [rsi + 0x20]
        mov [rsi + 0x380], eax
        mov rdi, {HEAP}
        mov rcx, [rdi]
        hlt
    """
    end = run_to_halt(guest.launch(code))
    assert (end.rax, end.rbx & 0xFF, end.rcx) == ((INPUT & LOW) << 32 | INPUT & LOW, 0x11, HEAP_WORD)
    assert asked(guest)[-1] == ("store", DEVICE + 0x380, 4, INPUT & LOW)
    assert ("load", DEVICE + 0x20, 1, 0) in asked(guest)


def test_above_4_gib_there_are_none(guest: Guest) -> None:
    vcpu = guest.launch(f"mov rsi, {ABOVE}\n mov eax, [rsi + 4]\n hlt")
    assert vcpu.run() == Exit(Reason.MMIO, gpa=ABOVE + 4, size=4)


def test_no_code_is_fetched_of_them(guest: Guest) -> None:
    vcpu = guest.launch(f"mov rsi, {DEVICE}\n jmp rsi")
    assert vcpu.run().reason is Reason.MMIO


def test_time_is_theirs(guest: Guest) -> None:
    end = run_to_halt(guest.launch("rdtsc\n mov rbx, rax\n rdtsc\n sub rax, rbx\n hlt"))
    assert (end.rax, end.rdx) == (5, 0)


def test_such_a_guest_runs_alone(guest: Guest) -> None:
    vcpu = guest.launch()
    with guest.platform.dram.bus.at_once(), pytest.raises(NotEmulatedError):
        vcpu.run()


@pytest.mark.parametrize("limit", [None, 100])
def test_a_halt_is_found_with_and_without_a_limit(limit: int | None) -> None:
    guest = Guest()
    vcpu = guest.launch("mov eax, 1\n hlt\n mov eax, 2\n hlt")
    for value in (1, 2):
        assert vcpu.run(limit) == Exit(Reason.HLT)
        assert vcpu.get_registers().rax == value


def test_a_limit_behind_a_byte_of_halt_is_none() -> None:
    guest = Guest()
    vcpu = guest.launch("again: mov al, 0xf4\n jmp again")
    assert vcpu.run(1) == Exit(Reason.LIMIT)


def test_bytes_that_only_look_like_instructions_cost_nothing(guest: Guest) -> None:
    """Of all that a plain guest with devices may execute, only RDMSR and WRMSR are looked for."""
    guest.contents[TEXT] = assemble("hlt") + b"\xec\xf4\x0f\xa2\xf0\xe4\xee" * 500
    vcpu = guest.launch()
    run_to_halt(vcpu)
    assert not vcpu._core._traps.are_many
    assert len(vcpu._core._traps) <= 1


def test_hooks_do_not_pile_up() -> None:
    """Code of 24 pages, each full of IN, and an exit in each page."""
    guest = Guest()
    pages = range(0x10_0000 - 24 * PAGE, 0x10_0000, PAGE)
    for page in pages:
        guest.tables.map(page, page, CODE)
        guest.contents[page] = assemble("inc rbx\n in al, dx\n").ljust(PAGE, b"\xec")
    vcpu = guest.launch()
    most = 0
    for page in pages:
        vcpu.set_registers(guest.registers(rip=page, rdi=HANDLERS, rbx=page))
        assert vcpu.run().reason is Reason.IO
        most = max(most, len(vcpu._core._traps))
        assert vcpu.get_registers().rbx == page + 1
    assert MANY_HOOKS < most < MANY_HOOKS + 2 * PAGE


def test_a_write_into_code_forgets_that_page_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code in one page changes code in another, a hundred times, and calls it."""
    guest = Guest()
    other = HEAP + 2 * PAGE
    guest.tables.map(other, other, CODE | RW)
    guest.contents[other] = assemble("mov eax, 0\n ret")
    code = f"""
        mov ecx, 100
        mov rsi, {other}
    again:
        mov [rsi + 1], ecx
        call rsi
        add rbx, rax
        loop again
        hlt
    """
    vcpu = guest.launch(code)
    flushed = []
    monkeypatch.setattr(vcpu._core._engine, "flush_code", lambda: flushed.append(1))
    end = run_to_halt(vcpu)
    assert end.rbx == sum(range(101))
    assert len(flushed) <= 1


def test_code_that_writes_into_its_own_page_goes_on_with_what_it_wrote() -> None:
    guest = Guest()
    guest.tables.map(TEXT, TEXT, CODE | RW)
    code = f"""
        mov ecx, 20
        mov rsi, {TEXT + 0x100}
    again:
        mov [rsi + 1], ecx
        call rsi
        add rbx, rax
        loop again
        hlt
    """
    guest.contents[TEXT] = assemble(code).ljust(0x100, b"\xcc") + assemble("mov eax, 0\n ret")
    assert run_to_halt(guest.launch()).rbx == sum(range(21))


def test_code_that_goes_on_into_the_page_that_it_writes_to() -> None:
    """The instruction behind the write is cut by the end of the page, so unicorn translates both at once."""
    guest = Guest()
    other = TEXT + PAGE
    guest.tables.map(other, other, CODE | RW)
    write = assemble("mov [rsi], rbx")
    begin = PAGE - len(write) - 3
    tail = assemble("mov rax, 0x1122334455667788")
    guest.contents[TEXT] = assemble("jmp rdi").ljust(begin, b"\xcc") + write + tail + assemble("hlt")
    end = run_to_halt(guest.launch(rdi=TEXT + begin, rsi=other + 0x800, rbx=HEAP_WORD))
    assert (end.rax, guest.word(other + 0x800)) == (0x1122_3344_5566_7788, HEAP_WORD)
