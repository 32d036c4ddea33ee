"""INS and OUTS of an SEV-ES guest, through its GHCB."""

from __future__ import annotations

import errno

import pytest

from emulator_tests.machine.guests import PAGE
from emulator_tests.machine.test_ghcb import BUFFER, GHCB, Asked, request
from mh_emulator.kvm import KvmError
from mh_emulator.q35.interrupts import Silent


class Ports(Silent):
    """Devices that keep what is sent, and answer one more each time."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, int]] = []
        self.asked = 0

    def read_port(self, _port: int, size: int) -> int:
        self.asked += 1
        return self.asked * 0x0101_0101 & (1 << 8 * size) - 1

    def write_port(self, port: int, size: int, value: int) -> None:
        self.sent.append((port, size, value))

    def read_memory(self, _gpa: int, _size: int) -> int:
        return 0

    def write_memory(self, _gpa: int, _size: int, _value: int) -> None:
        """Nothing is there."""

    def count(self) -> int:
        return 0


STRING, IN = 1 << 2, 1 << 0


def test_string_input_fills_the_scratch_area() -> None:
    asked = Asked(request(0x7B, 0x511 << 16 | 1 << 5 | STRING | IN, 3, scratch=GHCB + BUFFER))
    asked.guest.vm.devices = Ports()
    assert asked.answer() == (0, 0)
    assert asked.guest.memory.read_raw(GHCB + BUFFER, 8) == bytes([1, 1, 2, 2, 3, 3, 0, 0])


def test_string_output_takes_it_over_the_end_of_a_page() -> None:
    """Scratch memory may lie outside of the GHCB."""
    data = bytes(range(1, 13))
    asked = Asked(request(0x7B, 0x402 << 16 | 1 << 6 | STRING, 3, scratch=GHCB + 2 * PAGE - 6))
    asked.guest.memory.write_raw(GHCB + 2 * PAGE - 6, data[:6])
    asked.guest.memory.write_raw(GHCB + 2 * PAGE, data[6:])
    ports = asked.guest.vm.devices = Ports()
    assert asked.answer() == (0, 0)
    assert ports.sent == [(0x402, 4, int.from_bytes(data[at : at + 4], "little")) for at in (0, 4, 8)]


def test_string_input_without_devices_is_an_invalid_event() -> None:
    assert Asked(request(0x7B, 0x511 << 16 | 1 << 4 | STRING | IN, 1, scratch=GHCB + BUFFER)).answer() == (2, 6)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({}, 4), ({"scratch": 0}, 3), ({"scratch": GHCB + BUFFER - 1}, 3), ({"scratch": GHCB + 0xFEE}, 3)],
)
def test_string_input_needs_scratch_space(fields: dict[str, int], reason: int) -> None:
    asked = Asked(request(0x7B, 0x511 << 16 | 1 << 4 | STRING | IN, 3, **fields))
    asked.guest.vm.devices = Ports()
    assert asked.answer() == (2, reason)


@pytest.mark.parametrize("count", [0, 1 << 40])
def test_string_input_of_no_or_too_many_bytes_ends_the_guest(count: int) -> None:
    """KVM copies 16 KiB at most."""
    asked = Asked(request(0x7B, 0x511 << 16 | 1 << 4 | STRING | IN, count, scratch=GHCB + PAGE))
    asked.guest.vm.devices = Ports()
    with pytest.raises(KvmError) as caught:
        asked.vcpu.run()
    assert caught.value.errno == errno.EINVAL
