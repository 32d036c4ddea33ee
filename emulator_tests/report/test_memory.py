"""Memory dumps: raw ones, ELF cores, and files that only look like one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from emulator_tests.report.build import NX, PAGE, Memory, P, W
from mh_builder.paging import Geometry
from mh_builder.report.elf import Elf
from mh_builder.report.physical import DumpError, PhysicalMemory, Piece, map_file, raw_dump
from mh_builder.report.reader import read_tables


def core(segments: list[tuple[int, bytes, int]], notes: bytes = b"", many: bool = False) -> bytes:
    """An ELF core with (GPA, contents, size in memory) segments, and a note segment."""
    count = len(segments) + 1
    start = 64 + 56 * count + 64
    body = bytearray(notes)
    headers = [struct.pack("<IIQQQQQQ", 4, 0, start, 0, 0, len(notes), len(notes), 0)]
    for gpa, contents, size in segments:
        headers.append(struct.pack("<IIQQQQQQ", 1, 0, start + len(body), 0xDEAD000, gpa, len(contents), size, 0))
        body += contents
    sections = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, count, 0, 0)
    shown = 0xFFFF if many else count
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 64 + 56 * count, 0, 64, 56, shown, 64, 1, 0
    )
    return header + b"".join(headers) + sections + bytes(body)


@pytest.mark.parametrize("many", [False, True])
def test_segments_lie_where_their_physical_address_says(many: bool) -> None:
    data = core([(0x5000, b"five" + bytes(PAGE - 4), PAGE), (1 << 32, b"high", 2 * PAGE)], many=many)
    memory = Elf(data).memory()
    assert memory.read(0x5000, 4) == b"five"
    assert memory.read((1 << 32) + 2, 2) == b"gh"
    # What a core spans and has not stored is not known.
    for gpa in (0, 0x6000, (1 << 32) + 4, (1 << 32) + PAGE, (1 << 32) + 2 * PAGE):
        with pytest.raises(DumpError, match="outside the dump"):
            memory.read(gpa, 1)


def test_registers_of_qemus_note() -> None:
    registers = bytearray(440)
    struct.pack_into("<QQQQQ", registers, 392, 0x8001_0033, 0, 0, 0x1234000, 1 << 12 | 0x20)
    other = struct.pack("<III", 5, 3, 1) + b"CORE\0\0\0\0" + b"abc\0"
    note = struct.pack("<III", 5, len(registers), 0) + b"QEMU\0\0\0\0" + registers
    (cpu,) = Elf(core([(0, b"x", 1)], other + note)).cpus()
    assert (cpu.cr0, cpu.cr3, cpu.levels, cpu.efer) == (0x8001_0033, 0x1234000, 5, None)
    assert cpu.protects_from_kernel
    assert [cpu.cr3 for cpu in Elf(core([(0, b"x", 1)], note + note)).cpus()] == [0x1234000] * 2
    assert Elf(core([(0, b"x", 1)], other)).cpus() == []
    assert Elf(core([(0, b"x", 1)], note[:100])).cpus() == []


def test_what_is_wrong_with_a_core() -> None:
    whole = core([(0x5000, bytes(PAGE), PAGE)])
    for data, message in (
        (whole[:-1], r"^segment of GPA 0x5000 ends at 0x[0-9a-f]+, the file at 0x[0-9a-f]+$"),
        (whole[:70], r"^program header ends at 0x78, the ELF file at 0x46$"),
        (core([]), r"^none of the ELF file's 1 program headers loads memory$"),
        (
            core([(0, bytes(2 * PAGE), 2 * PAGE), (PAGE, b"x" * PAGE, PAGE)]),
            r"^memory at GPA 0x1000 is stored twice, at 0x[0-9a-f]+ and 0x[0-9a-f]+, and not the same$",
        ),
        (whole[:18] + b"\x28\0" + whole[20:], r"class 2, order 1, machine 40, type 4: neither 2, 1, 62 .* machine 3$"),
        (whole[:16] + b"\2\0\3\0" + whole[20:], r"class 2, order 1, machine 3, type 2: neither 2, 1, 62 .* machine 3$"),
    ):
        with pytest.raises(DumpError, match=message):
            Elf(data).memory()


def test_tables_across_pieces() -> None:
    memory = Memory()
    root = memory.chain(4, memory.table({0: 0x9000 | P | W | NX}))
    data = bytes(memory.data)
    pieces = [Piece(gpa, PAGE, data, gpa) for gpa in range(0, len(data), PAGE)]
    found = read_tables(PhysicalMemory(pieces), root, Geometry(52, None)).mappings
    assert [(one.va, one.gpa, one.size) for one in found] == [(0, 0x9000, PAGE)]
    assert found == read_tables(raw_dump(data), root, Geometry(52, None)).mappings


def test_a_dump_larger_than_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    top = (1 << 40) - PAGE
    with path.open("wb") as file:
        file.truncate(top + PAGE)
        file.seek(top)
        file.write(struct.pack("<Q", top | P))
    reading = read_tables(raw_dump(map_file(path)), top, Geometry(52, None))
    assert [mapping.gpa for mapping in reading.mappings] == [top]
