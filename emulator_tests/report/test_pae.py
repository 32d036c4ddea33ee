"""Tables of 32-bit guests with PAE: by hand, and those of a guest under QEMU, which says what is mapped."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator_tests.report.build import LARGE, NX, PAGE, PCD, PWT, A, D, Memory, P, U, W
from emulator_tests.report.kdumps import kdump
from emulator_tests.report.linux import mem_of, tlb_of
from emulator_tests.report.test_dumps import note, ran, write
from emulator_tests.report.test_linux import flags, ranges
from mh_builder.asm.assembler import assemble_text
from mh_builder.paging import GIB, MIB, PAE_LEVELS, Geometry, Leaf, walk
from mh_builder.report.mapping import Mapping
from mh_builder.report.open import Hints, open_layout
from mh_builder.report.physical import DumpError, raw_dump
from mh_builder.report.reader import Flaw, Reading, read_tables
from mh_qemu.machine import PROGRAM, QemuMachine

PAE = Geometry(52, None, PAE_LEVELS)
ROOT = 0x20
"""The root is 32 bytes anywhere in a page."""


STATUS = struct.pack("<III", 5, 144, 1) + b"CORE\0\0\0\0" + bytes(144)
"""The note of general registers of 32 bits."""


def core32(data: bytes, notes: bytes) -> bytes:
    """A core of class 32 with this memory from GPA 0."""
    start = 52 + 2 * 32
    headers = struct.pack("<8I", 4, start, 0, 0, len(notes), len(notes), 0, 0)
    headers += struct.pack("<8I", 1, start + len(notes), 0xDEAD000, 0, len(data), len(data), 7, 0)
    header = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 4, 3, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0
    )  # fmt: skip
    return header + headers + notes + data


def empty() -> Memory:
    """Memory with a page for the root."""
    memory = Memory()
    memory.table()
    return memory


def set_root(memory: Memory, *entries: int) -> None:
    struct.pack_into("<4Q", memory.data, ROOT, *entries)


def guest() -> Memory:
    """Two directories of the four: pages of both sizes, all rights, one directory used twice."""
    memory = empty()
    pt = memory.table({5: 0x7000 | P | W | NX, 6: 0x8000 | P | U, 7: 0x1_2345_6000 | P | W | U | A | D | NX})
    pd = memory.table({0: pt | P | W | U, 1: 0x40_0000 | P | W | LARGE, 3: pt | P | NX, 511: 0x20_0000 | P | LARGE})
    set_root(memory, pd | P, 0, pd | P | PWT | PCD, 0)
    return memory


def short(mapping: Mapping) -> tuple[int, int, int, str, bool]:
    return mapping.va, mapping.gpa, mapping.size, mapping.rights, mapping.user


def read(memory: Memory) -> Reading:
    return read_tables(raw_dump(bytes(memory.data)), ROOT, PAE)


def test_every_kind_of_entry() -> None:
    found = [short(mapping) for mapping in read(guest()).mappings]
    once = [
        (5 * PAGE, 0x7000, PAGE, "rw-", False),
        (6 * PAGE, 0x8000, PAGE, "r-x", True),
        (7 * PAGE, 0x1_2345_6000, PAGE, "rw-", True),
        (2 * MIB, 4 * MIB, 2 * MIB, "rwx", False),
        (6 * MIB + 5 * PAGE, 0x7000, PAGE, "r--", False),
        (6 * MIB + 6 * PAGE, 0x8000, PAGE, "r--", False),
        (6 * MIB + 7 * PAGE, 0x1_2345_6000, PAGE, "r--", False),
        (GIB - 2 * MIB, 2 * MIB, 2 * MIB, "r-x", False),
    ]
    assert found == [*once, *((va + 2 * GIB, *rest) for va, *rest in once)]


def test_the_walker_agrees() -> None:
    memory = guest()
    dump = raw_dump(bytes(memory.data))
    mappings = {va: mapping for mapping in read(memory).mappings for va, _ in mapping.pages()}
    for va in range(0, 8 * MIB, PAGE):
        leaf = walk(dump.read_entry, ROOT, va, PAE)
        mapping = mappings.get(va & -2 * MIB) or mappings.get(va)
        assert isinstance(leaf, Leaf) == (mapping is not None)
        if isinstance(leaf, Leaf) and mapping is not None:
            assert leaf.gpa == mapping.gpa + va - mapping.va
            assert (leaf.writable, leaf.user, leaf.executable) == (mapping.writable, mapping.user, mapping.executable)


def test_reserved_bits_are_those_of_pae() -> None:
    memory = empty()
    pd = memory.table({0: 0x5000 | P | 1 << 52, 1: 1 << 21 | P | LARGE | 1 << 62, 2: 4 * MIB | P | LARGE})
    set_root(memory, pd | P, pd | P | W, pd | P | NX, pd | P | A)
    reading = read(memory)
    found = [(defect.flaw, defect.va, defect.level) for defect in reading.defects]
    assert found == [
        (Flaw.RESERVED, 0, 2),
        (Flaw.LARGE_ROOT, 2 * MIB, 2),
        (Flaw.RESERVED, GIB, 3),
        (Flaw.RESERVED, 2 * GIB, 3),
    ]
    # QEMU sets A in the root, where it is reserved.
    assert [mapping.va for mapping in reading.mappings] == [4 * MIB, 3 * GIB + 4 * MIB]


@pytest.mark.parametrize("bits", [32, 64])
def test_kdumps_of_both_kinds(bits: int) -> None:
    """What QEMU writes of such a guest goes by where its memory ends."""
    data = bytes(guest().data)
    pages = {at // PAGE: data[at : at + PAGE] for at in range(0, len(data), PAGE)}
    layout = open_layout(kdump(pages, STATUS + note(ROOT), bits=bits), "dump", Hints())
    assert layout.geometry.levels == PAE_LEVELS
    assert layout.reading.mappings == read(guest()).mappings


def test_verbs_read_a_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, core32(bytes(guest().data), STATUS + note(ROOT)))
    code, out, _ = ran(capsys, "show", path, "--json")
    shown = json.loads(out)
    assert (code, shown["levels"], len(shown["regions"])) == (0, 3, 14)
    code, out, _ = ran(capsys, "audit", path)
    assert code == 1
    assert out.startswith("dump: w^x: 0x200000 to 0x400000 -> GPA 0x400000 rwx ")
    code, out, _ = ran(capsys, "walk", path, "0x605123")
    assert code == 0
    assert out.splitlines()[-2:] == [
        "0x605123 -> GPA 0x7123 r--, 4 KiB page",
        "write: denied by PD, user mode: denied by PD and PT, execute: denied by PD and PT",
    ]
    raw = tmp_path / "raw"
    raw.write_bytes(guest().data)
    code, out, _ = ran(capsys, "diff", path, raw, "--cr3", hex(ROOT), "--pae")
    assert (code, out) == (0, "dump and raw: no difference\n")
    code, _, err = ran(capsys, "walk", path, "0x100000000")
    assert (code, err) == (1, "build.py: error: virtual address 0x100000000 is not below 4 GiB\n")


LOAD = 1 * MIB
TABLES = 2 * MIB
PORT = 0xE9
START = f"""
.code32
.section .text
.long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
.long {LOAD:#x}, {LOAD:#x}, 0, 0, {LOAD + 32:#x}
    mov eax, 0x20
    mov cr4, eax
    mov eax, {TABLES:#x}
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x800
    xor edx, edx
    wrmsr
    mov eax, 0x80010001
    mov cr0, eax
    mov al, 'k'
    out {PORT:#x}, al
    mov al, 10
    out {PORT:#x}, al
.Lwait:
    jmp .Lwait
"""
"""Turns on PAE with the tables at `TABLES`. Source: Multiboot Specification 0.6.96, 3.1 (a header with addresses)."""


def program_with_tables(chance: random.Random) -> bytes:
    """The file of a guest: tables of all kinds of entries, and its own first 2 MiB, identically mapped."""
    memory = Memory()
    memory.data = bytearray(TABLES)
    root = memory.table()
    bits = [P, P | W, P | U, P | NX, P | W | U, P | W | NX, P | W | U | NX, 0]
    pages = [
        memory.table(
            {at: chance.randrange(1 << 20) << 12 | chance.choice(bits) for at in chance.sample(range(512), 40)}
        )
        for _ in range(6)
    ]
    for number in range(3):
        entries = {at: chance.choice(pages) | chance.choice(bits) for at in chance.sample(range(1, 512), 20)}
        entries |= {at: chance.randrange(1 << 11) << 21 | LARGE | chance.choice(bits) for at in range(40, 300, 13)}
        directory = memory.table(entries | {0: P | W | LARGE})
        memory.set(root, number, directory | P)
    (code,) = [bytes(section.data) for section in assemble_text(START, "start").sections if section.name == ".text"]
    memory.data[LOAD : LOAD + len(code)] = code
    return bytes(memory.data[LOAD:])


def test_qemu_agrees(program: Callable[[str], str], tmp_path: Path) -> None:
    """Each page, its rights, and both kinds of dump, of a guest that runs on random tables."""
    program(PROGRAM)
    kernel, elf, compressed = tmp_path / "kernel", tmp_path / "elf", tmp_path / "compressed"
    kernel.write_bytes(program_with_tables(random.Random(3)))
    with QemuMachine(["-kernel", str(kernel)], ram_mib=16, debug_port=PORT) as machine:
        machine.wait_for_debug("k", seconds=60)
        machine.stop()
        tlb, mem = (machine.qmp.monitor(f"info {what}") for what in ("tlb", "mem"))
        machine.qmp.execute("dump-guest-memory", {"paging": False, "protocol": f"file:{elf}"})
        packed = {"paging": False, "protocol": f"file:{compressed}", "format": "kdump-zlib"}
        machine.qmp.execute("dump-guest-memory", packed)
    for path in (elf, compressed):
        layout = open_layout(path.read_bytes(), "guest", Hints())
        assert (layout.geometry.levels, layout.reading.cr3, layout.reading.defects) == (3, TABLES, ())
        found = {
            (va, gpa, flags(mapping.bits, mapping.page_bytes))
            for mapping in layout.reading.mappings
            for va, gpa in mapping.pages()
        }
        # Of PAE, QEMU 7.2 prints NX as a bit of the address too.
        assert found == {(va, gpa & ~NX, letters) for va, gpa, letters in tlb_of(tlb)}
        assert len(found) > 1000
        assert ranges(iter(layout.reading.mappings)) == mem_of(mem)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 700))
def test_damaged_cores_end_in_a_word(patch: bytes, at: int) -> None:
    data = bytearray(core32(bytes(guest().data), STATUS + note(ROOT)))
    data[at : at + len(patch)] = patch
    with suppress(DumpError):
        assert open_layout(bytes(data), "dump", Hints()).regions is not None
