"""kvmclock: what a guest computes from its page is the model's time. Source: Linux, pvclock-abi.h and msr.rst."""

from __future__ import annotations

import struct

import pytest

from emulator_tests.machine.guests import HEAP, PAGE, Guest, run_to_halt
from mh_builder.parts import NO_LEAF
from mh_emulator.kvm.clock import SYSTEM_TIME_MSR, WALL_CLOCK_MSR, SystemTime, WallClock
from mh_emulator.kvm.machine import CpuidChange

TIME = 0x4_0000


class Memory:
    """RAM of 1 MiB, and what was written to it."""

    def __init__(self) -> None:
        self.data = bytearray(1 << 20)

    def has(self, gpa: int, size: int) -> bool:
        return gpa >= 0 and gpa + size <= len(self.data)

    def write_raw(self, gpa: int, data: bytes) -> None:
        self.data[gpa : gpa + len(data)] = data


@pytest.mark.parametrize("hz", [1_000_000_001, 1_500_000_000, 2_000_000_000])
def test_nanoseconds(hz: int) -> None:
    memory = Memory()
    device = SystemTime(memory, hz)
    device.write(TIME | 1)
    version, stamp, system, factor, shift, flags = struct.unpack_from("<I4xQQIbB", memory.data, TIME)
    assert (version % 2, stamp, system, shift, flags) == (0, 0, 0, 0, 1)
    for seconds in (1, 100):
        found = seconds * hz * factor >> 32
        assert abs(found - seconds * 10**9) <= seconds * 10
    assert device.read() == TIME | 1


@pytest.mark.parametrize("hz", [999_999_999, 2_000_000_001])
def test_frequencies_that_it_cannot_say(hz: int) -> None:
    with pytest.raises(ValueError, match=f"^TSC of {hz} Hz"):
        SystemTime(Memory(), hz)


def test_switched_off_and_outside_of_ram() -> None:
    memory = Memory()
    device = SystemTime(memory, 2_000_000_000)
    for value in (TIME, (1 << 20) - 8 | 1, (1 << 64) - 1, 1 << 63 | 1):
        device.write(value)
        assert device.read() == value
    wall = WallClock(memory, 12)
    wall.write((1 << 64) - 4)
    assert not any(memory.data)
    wall.write(TIME)
    assert struct.unpack_from("<III", memory.data, TIME) == (2, 12, 0)


def test_a_guest_writes_and_reads_the_msr() -> None:
    """The page is the host's to write: what the guest sees there without the C-bit."""
    guest = Guest()
    value = HEAP + PAGE | 1
    write = f"mov ecx, {SYSTEM_TIME_MSR}\n mov eax, {value}\n xor edx, edx\n wrmsr\n"
    vcpu = guest.launch(f"{write} xor eax, eax\n rdmsr\n hlt")

    class Raw(Memory):
        def write_raw(self, gpa: int, data: bytes) -> None:
            guest.memory.write_raw(gpa, data)

    vcpu.msr_devices = {SYSTEM_TIME_MSR: SystemTime(Raw(), 2_000_000_000), WALL_CLOCK_MSR: WallClock(Raw(), 0)}
    state = run_to_halt(vcpu)
    assert (state.rax, state.rdx) == (value, 0)
    assert guest.memory.read_raw(HEAP + PAGE, 4) == bytes([2, 0, 0, 0])


def test_a_host_changes_what_cpuid_says() -> None:
    guest = Guest()
    usual = guest.vm.cpuid(1, 0)
    guest.vm.cpuid_changes = {1: CpuidChange(NO_LEAF._replace(ecx=1 << 24), NO_LEAF._replace(ecx=1 << 30))}
    vcpu = guest.launch("mov eax, 1\n xor ecx, ecx\n cpuid\n hlt")
    state = run_to_halt(vcpu)
    assert (usual.ecx >> 24 & 1, usual.ecx >> 30 & 1) == (0, 1)
    assert (state.rcx, state.rdx) == (usual.ecx ^ 1 << 24 ^ 1 << 30, usual.edx)
