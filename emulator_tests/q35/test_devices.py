"""The devices of the board, asked as a guest asks them, in good faith and in bad."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mh_builder.paging import MIB
from mh_builder.parts import PARTS
from mh_emulator.platform import Platform
from mh_emulator.q35 import console
from mh_emulator.q35.board import Board, Telling
from mh_emulator.q35.clock import LOOK_NS, Clock
from mh_emulator.q35.flash import SECTOR_BYTES, Flash
from mh_emulator.q35.launch import topology
from mh_emulator.q35.view import HostView

RAM = 64 * MIB
READ, SKIP, CHOOSE, WRITE = 2, 4, 8, 16
E820, FILES = 0x20, 0x19


class Machine:
    """A board, RAM as its host sees it, and what was printed and used."""

    def __init__(self, ram_bytes: int = RAM) -> None:
        self.lines: list[str] = []
        self.used: list[str] = []
        ram = topology(ram_bytes)
        platform = Platform(PARTS["milan"], 8 * MIB, 1)
        self.memory, self.flash = platform.memory(ram.ram_bytes), platform.memory(MIB)
        telling = Telling(self.lines.append, self.used.append)
        self.board = Board(ram, HostView(ram, self.memory), Flash(self.flash, 1 << 32), telling, Clock())

    def dma(self, control: int, size: int, where: int, at: int = 0x1000) -> int:
        """A transfer; what the device says of it."""
        self.memory.write_raw(at, struct.pack(">IIQ", control, size, where))
        self.board.write_port(0x514, 4, int.from_bytes((at >> 32).to_bytes(4, "big"), "little"))
        self.board.write_port(0x518, 4, int.from_bytes((at & 0xFFFF_FFFF).to_bytes(4, "big"), "little"))
        return int.from_bytes(self.memory.read_raw(at, 4), "big")


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_fw_cfg_by_ports(machine: Machine) -> None:
    board = machine.board
    board.write_port(0x510, 2, 0)
    assert bytes(board.read_port(0x511, 1) for _ in range(5)) == b"QEMU\0"
    assert struct.pack("<II", board.read_port(0x514, 4), board.read_port(0x518, 4)) == b"QEMU CFG"


def test_fw_cfg_by_dma_gives_files(machine: Machine) -> None:
    assert machine.dma(FILES << 16 | CHOOSE | READ, 4 + 64, 0x2000) == 0
    count, size, key, name = struct.unpack(">IIH2x56s", machine.memory.read_raw(0x2000, 68))
    assert (count, size, key, name.rstrip(b"\0")) == (2, 20, E820, b"etc/e820")
    assert machine.dma(E820 << 16 | CHOOSE | SKIP, 8, 0) == 0
    assert machine.dma(READ, 12, 0x3000) == 0
    assert struct.unpack("<QI", machine.memory.read_raw(0x3000, 12)) == (RAM, 1)


@pytest.mark.parametrize(
    ("control", "size", "where"),
    [
        (READ, 16, RAM),
        (READ, 16, RAM - 8),
        (READ, 0xFFFF_FFFF, 0),
        (READ, 16, (1 << 64) - 8),
        (CHOOSE | WRITE, 4, 0x2000),
        (READ, 16, 0xFEE0_0000),
    ],
)
def test_fw_cfg_refuses(machine: Machine, control: int, size: int, where: int) -> None:
    assert machine.dma(control, size, where) == 1
    assert machine.board.read_port(0x511, 1) in range(256)


@pytest.mark.parametrize("at", [RAM, RAM - 8, 1 << 40, (1 << 64) - 16])
def test_a_descriptor_that_is_nowhere_does_nothing(machine: Machine, at: int) -> None:
    for port, value in ((0x514, at >> 32), (0x518, at & 0xFFFF_FFFF)):
        machine.board.write_port(port, 4, int.from_bytes(value.to_bytes(4, "big"), "little"))
    assert machine.memory.populated() == []


def test_a_read_of_a_large_size_takes_no_memory(machine: Machine) -> None:
    """The item is short, and the rest is zeros, as far as there is RAM."""
    assert machine.dma(E820 << 16 | CHOOSE | READ, 3 * MIB, 0x10_0000) == 0
    assert machine.memory.read_raw(0x10_0000 + 3 * MIB - 8, 8) == bytes(8)


def register(board: Board, number: int) -> int:
    board.write_port(0x70, 1, number)
    return board.read_port(0x71, 1)


def test_the_clock_stays_valid_whatever_is_written(machine: Machine) -> None:
    """As edk2 writes zero to C and D when it begins (PcAtChipsetPkg, PcRtc.c); A and B are the guest's."""
    for number, value in ((0x0A, 0x2F), (0x0B, 0x82), (0x0C, 0xFF), (0x0D, 0)):
        machine.board.write_port(0x70, 1, number)
        machine.board.write_port(0x71, 1, value)
    assert [register(machine.board, number) for number in range(0x0A, 0x0E)] == [0x2F, 0x82, 0, 0x80]


def test_cmos_says_how_much_ram_there_is() -> None:
    for ram_bytes, low, high in ((RAM, RAM, 0), (3 << 30, 2 << 30, 1 << 30)):
        board = Machine(ram_bytes).board
        assert (register(board, 0x34) | register(board, 0x35) << 8) << 16 == low - 16 * MIB
        assert (register(board, 0x5B) | register(board, 0x5C) << 8 | register(board, 0x5D) << 16) << 16 == high


def test_pci_by_ports_and_by_ecam(machine: Machine) -> None:
    board = machine.board
    board.write_port(0xCF8, 4, 1 << 31)
    assert board.read_port(0xCFC, 4) == 0x29C0_8086
    assert board.read_memory(0xB000_0000, 4) == 0xFFFF_FFFF
    board.write_port(0xCF8, 4, 1 << 31 | 0x60)
    board.write_port(0xCFC, 4, 0xB000_0001)
    assert board.read_memory(0xB000_0000, 4) == 0x29C0_8086
    lpc = 0xB000_0000 | 31 << 15
    assert board.read_memory(lpc + 2, 2) == 0x2918
    board.write_memory(lpc, 4, 0)
    board.write_memory(lpc + 0x40, 4, 0x601)
    assert (board.read_memory(lpc, 2), board.read_memory(lpc + 0x40, 4)) == (0x8086, 0x601)
    board.write_port(0xCF8, 4, 1 << 31 | 3 << 11)
    assert board.read_port(0xCFC, 4) == 0xFFFF_FFFF


def test_time_goes_on_with_each_look(machine: Machine) -> None:
    board = machine.board
    first = board.read_port(0x608, 4)
    board.write_memory(0xFEE0_03E0, 4, 0b1011)
    board.write_memory(0xFEE0_0380, 4, 10**9)
    assert 10**9 - board.read_memory(0xFEE0_0390, 4) == LOOK_NS
    assert board.read_port(0x608, 4) - first in range(
        4 * LOOK_NS * 3_579_545 // 10**9, 5 * LOOK_NS * 3_579_545 // 10**9 + 1
    )
    assert board.count() == board.clock.now * 2


def test_what_is_printed_becomes_lines(machine: Machine) -> None:
    for byte in b"one\r\ntwo":
        machine.board.write_port(0x402, 1, byte)
    assert machine.lines == ["one"]
    assert machine.board.debug.text == "one\r\ntwo"
    assert machine.used == ["debug port"]


def test_a_guest_that_prints_for_ever_fills_no_memory(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(console, "LIMIT", 100)
    for _ in range(1000):
        machine.board.write_port(0x3F8, 1, 0x41)
    assert len(machine.board.serial.text) == 100


def test_a_serial_port_is_found_by_its_loop(machine: Machine) -> None:
    board = machine.board
    board.write_port(0x3FC, 1, 0x10)
    board.write_port(0x3F8, 1, 0x5A)
    assert (board.read_port(0x3FD, 1) & 1, board.read_port(0x3F8, 1), board.read_port(0x3FD, 1) & 1) == (1, 0x5A, 0)
    board.write_port(0x3FB, 1, 0x83)
    board.write_port(0x3F8, 1, 0x01)
    assert (board.read_port(0x3F8, 1), board.serial.text) == (1, "")


def test_where_nothing_is_all_ones_are_read(machine: Machine) -> None:
    board = machine.board
    assert [board.read_port(0x1234, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFF_FFFF]
    assert board.read_memory(0xE000_0000, 8) == (1 << 64) - 1
    board.write_port(0x1234, 4, 5)
    board.write_memory(0xE000_0000, 4, 5)
    assert machine.used == []


def test_flash_takes_commands(machine: Machine) -> None:
    """A sector is erased, a byte of it programmed; a command without its second half does nothing."""
    board, start = machine.board, (1 << 32) - MIB
    at = start + 3 * SECTOR_BYTES + 5
    for gpa, value in ((at, 0x20), (at, 0xD0), (at, 0x10), (at, 0x5A), (at + 1, 0xFF), (at + 2, 0x20), (at, 0x55)):
        board.write_memory(gpa, 1, value)
    sector = machine.flash.read_raw(3 * SECTOR_BYTES, SECTOR_BYTES)
    assert sector == b"\xff" * 5 + b"\x5a" + b"\xff" * (SECTOR_BYTES - 6)
    assert machine.flash.populated() == [3 * SECTOR_BYTES]
    assert board.read_memory(at, 2) == 0xFF5A


ACCESS = st.tuples(
    st.one_of(st.sampled_from([0x70, 0x71, 0x402, 0x510, 0x511, 0x514, 0x518, 0x608, 0xCF8, 0xCFC, 0xCFF, 0x3F8, 0x92]),
              st.integers(0, 0xFFFF)),
    st.sampled_from([1, 2, 4]), st.integers(0, 0xFFFF_FFFF), st.booleans(),
)  # fmt: skip
PLACES = ((0xFEE0_0000, 0xFEE0_0FFF), (0xB000_0000, 0xBFFF_FFFF), (0, 0xFFFF_FFFF), (0xFFF0_0000, 0xFFFF_FFFF))
LOADS = st.tuples(
    st.one_of(*(st.integers(*place) for place in PLACES)),
    st.sampled_from([1, 2, 4, 8]), st.integers(0, (1 << 64) - 1), st.booleans(),
)  # fmt: skip


@given(st.lists(ACCESS, max_size=30), st.lists(LOADS, max_size=30))
def test_whatever_a_guest_asks_it_gets_an_answer_of_that_size(
    ports: list[tuple[int, int, int, bool]], loads: list[tuple[int, int, int, bool]]
) -> None:
    board = Machine().board
    for port, size, value, is_write in ports:
        if is_write:
            board.write_port(port, size, value & (1 << 8 * size) - 1)
        else:
            assert 0 <= board.read_port(port, size) < 1 << 8 * size
    for gpa, size, value, is_write in loads:
        if is_write:
            board.write_memory(gpa, size, value & (1 << 8 * size) - 1)
        else:
            assert 0 <= board.read_memory(gpa, size) < 1 << 8 * size


def test_a_driver_that_polls_learns_that_the_sender_is_empty(machine: Machine) -> None:
    """Once for each byte sent, and once for switching the interrupt on (PC16550D, table 5)."""
    board = machine.board
    assert board.read_port(0x3FA, 1) & 0xF == 1
    board.write_port(0x3F9, 1, 2)
    assert [board.read_port(0x3FA, 1) & 0xF for _ in range(2)] == [2, 1]
    board.write_port(0x3F8, 1, ord("x"))
    assert [board.read_port(0x3FA, 1) & 0xF for _ in range(2)] == [2, 1]
    board.write_port(0x3F9, 1, 0)
    board.write_port(0x3F8, 1, ord("y"))
    assert board.read_port(0x3FA, 1) & 0xF == 1
    assert board.serial.text == "xy"
