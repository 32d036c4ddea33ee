"""ELF files as memory: cores whose segments say where they lie physically, and our own images.

Source: System V gABI, chapters 4 and 5; `p_paddr` is what QEMU's `dump-guest-memory` and Linux's vmcore fill in.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

from mh_builder.report.physical import DumpError, PhysicalMemory, Piece

MAGIC = b"\x7fELF"
_CLASS64, _LITTLE = 2, 1
_EM_X86_64 = 62
_PT_LOAD, _PT_NOTE = 1, 4
_SHT_NOBITS = 8
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_MANY_PROGRAMS = 0xFFFF
"""PN_XNUM: the number of program headers is in section header 0."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")

_QEMU_NOTE = b"QEMU\0"
"""QEMU's own note, one for each CPU (target/i386/arch_dump.c, struct QEMUCPUState)."""
_QEMU_CONTROL = struct.Struct("<392x5Q")
"""CR0 to CR4, behind version and size, 18 general registers and 10 segments of 24 bytes."""
_CR4_LA57 = 1 << 12


class Control(NamedTuple):
    """The registers of a dumped CPU that say how it translates."""

    cr3: int
    levels: int


class ElfSection(NamedTuple):
    """A section that is in memory: `stored` of its `size` bytes come from the file."""

    name: str
    va: int
    size: int
    stored: int
    writable: bool
    executable: bool


class Elf:
    """An ELF64 file for x86-64. Raises `DumpError` where it is another one, or truncated."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        if len(data) < _HEADER.size or data[:4] != MAGIC:
            raise DumpError(f"ELF file of {len(data):#x} bytes has no header of {_HEADER.size:#x}")
        fields = _HEADER.unpack(data[: _HEADER.size])
        identity, _, machine = fields[:3]
        if (identity[4], identity[5], machine) != (_CLASS64, _LITTLE, _EM_X86_64):
            raise DumpError(
                f"ELF file is of class {identity[4]}, order {identity[5]}, machine {machine}: "
                f"not {_CLASS64}, {_LITTLE}, {_EM_X86_64} (x86-64)"
            )
        self._program_offset, self._section_offset = fields[5], fields[6]
        self._program_count, self._section_count, self._names = fields[10], fields[12], fields[13]
        if self._program_count == _MANY_PROGRAMS:
            self._program_count = int(self._unpack(_SECTION, self._section_offset, "section header")[7])

    def memory(self) -> PhysicalMemory:
        """What PT_LOAD segments put where (`p_paddr`). Raises `DumpError` where there is none, or it is cut off."""
        pieces = []
        for number in range(self._program_count):
            place = self._program_offset + number * _PROGRAM.size
            kind, _, offset, _, gpa, stored, size, _ = self._unpack(_PROGRAM, place, "program header")
            if kind != _PT_LOAD:
                continue
            if stored and offset + stored > len(self._data):
                end = offset + stored
                raise DumpError(f"segment of GPA {gpa:#x} ends at {end:#x}, the file at {len(self._data):#x}")
            pieces.append(_piece(self._data, gpa, offset, stored, size))
        if not pieces:
            raise DumpError(f"none of the ELF file's {self._program_count} program headers loads memory")
        return PhysicalMemory(pieces)

    def control(self) -> Control | None:
        """The control registers of the first CPU, where QEMU has dumped them."""
        for number in range(self._program_count):
            place = self._program_offset + number * _PROGRAM.size
            kind, _, offset, _, _, size, _, _ = self._unpack(_PROGRAM, place, "program header")
            if kind != _PT_NOTE:
                continue
            for name, contents in _notes(bytes(self._data[offset : offset + size])):
                if name == _QEMU_NOTE and len(contents) >= _QEMU_CONTROL.size:
                    _, _, _, cr3, cr4 = _QEMU_CONTROL.unpack_from(contents)
                    return Control(cr3, 5 if cr4 & _CR4_LA57 else 4)
        return None

    def sections(self) -> list[ElfSection]:
        """The sections that are in memory, in the order of the file."""
        headers = [
            self._unpack(_SECTION, self._section_offset + number * _SECTION.size, "section header")
            for number in range(self._section_count)
        ]
        if not 0 < self._names < len(headers):
            return []
        start, size = headers[self._names][4:6]
        names = bytes(self._data[start : start + size])
        return [
            ElfSection(
                name=names[name : names.find(b"\0", name)].decode("ascii", "replace"),
                va=va,
                size=length,
                stored=0 if kind == _SHT_NOBITS else length,
                writable=bool(flags & _SHF_WRITE),
                executable=bool(flags & _SHF_EXECINSTR),
            )
            for name, kind, flags, va, _, length, *_ in headers
            if flags & _SHF_ALLOC
        ]

    def _unpack(self, what: struct.Struct, offset: int, name: str) -> tuple[int, ...]:
        if offset + what.size > len(self._data):
            raise DumpError(f"{name} ends at {offset + what.size:#x}, the ELF file at {len(self._data):#x}")
        return what.unpack(self._data[offset : offset + what.size])


def _piece(data: bytes | mmap.mmap, gpa: int, offset: int, stored: int, size: int) -> Piece:
    if stored >= size:
        return Piece(gpa, stored, data, offset)
    # Behind the stored bytes there are zeros, not the next segment of the file.
    return Piece(gpa, size, bytes(data[offset : offset + stored]))


def _notes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, contents) of each note; both are padded to 4 bytes."""
    position = 0
    while position + _NOTE.size <= len(data):
        name_size, size, _ = _NOTE.unpack_from(data, position)
        position += _NOTE.size
        start = position + (name_size + 3 & -4)
        yield data[position : position + name_size], data[start : start + size]
        position = start + (size + 3 & -4)
