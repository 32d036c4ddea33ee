"""ELF files as memory: cores whose segments say where they lie physically, and our own images.

Source: System V gABI, chapters 4 and 5; `p_paddr` is what QEMU's `dump-guest-memory` and Linux's vmcore fill in.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

from mh_builder.report.cpu import Cpu
from mh_builder.report.notes import cpus_of
from mh_builder.report.physical import DumpError, PhysicalMemory, Piece, merged

MAGIC = b"\x7fELF"
_LITTLE = 1
_ET_CORE = 4
_EM_386, _EM_X86_64 = 3, 62
_PT_LOAD, _PT_NOTE = 1, 4
_SHT_NOBITS = 8
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_MANY_PROGRAMS = 0xFFFF
"""PN_XNUM: the number of program headers is in section header 0."""


class _Class(NamedTuple):
    """How the headers of a class of files are written; `program` says which of its fields come in which order."""

    header: struct.Struct
    program: struct.Struct
    order: tuple[int, ...]
    section: struct.Struct


_CLASSES = {
    1: _Class(
        struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<8I"), (0, 6, 1, 2, 3, 4, 5, 7),
        struct.Struct("<10I"),
    ),
    2: _Class(
        struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), tuple(range(8)),
        struct.Struct("<IIQQQQIIQQ"),
    ),
}  # fmt: skip
_WIDE = _CLASSES[2]
_IDENTITY = 16


class ElfSection(NamedTuple):
    """A section that is in memory: `stored` of its `size` bytes come from the file."""

    name: str
    va: int
    size: int
    stored: int
    writable: bool
    executable: bool


class Elf:
    """An ELF file for x86-64, or a core of a 32-bit guest. Raises `DumpError` where it is another, or truncated."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        identity = data[:_IDENTITY]
        self._class = _CLASSES.get(identity[4], _WIDE) if len(identity) == _IDENTITY else _WIDE
        header = self._class.header
        if len(data) < header.size or data[:4] != MAGIC:
            raise DumpError(f"ELF file of {len(data):#x} bytes has no header of {header.size:#x}")
        fields = header.unpack(data[: header.size])
        _, kind, machine = fields[:3]
        self.is_core = kind == _ET_CORE
        # A core of a 32-bit guest is of either class: it is 2 where memory ends at 4 GiB or above.
        machines = (_EM_386, _EM_X86_64) if self.is_core else (_EM_X86_64,)
        if identity[4] not in _CLASSES or identity[5] != _LITTLE or machine not in machines:
            raise DumpError(
                f"ELF file is of class {identity[4]}, order {identity[5]}, machine {machine}, type {kind}: "
                f"neither 2, {_LITTLE}, {_EM_X86_64} (x86-64) nor a core of machine {_EM_386}"
            )
        self._program_offset, self._section_offset = fields[5], fields[6]
        self._program_count, self._section_count, self._names = fields[10], fields[12], fields[13]
        if self._program_count == _MANY_PROGRAMS:
            self._program_count = int(self._unpack(self._class.section, self._section_offset, "section header")[7])

    def memory(self) -> PhysicalMemory:
        """What PT_LOAD segments put where (`p_paddr`). Raises `DumpError` where there is none, or it is cut off.

        In a core, what is not stored of a segment is not known; elsewhere it is zero. Segments of a core may be about
        the same memory, as those of `dump-guest-memory -p` and of /proc/vmcore are, which are made of mappings.
        """
        pieces = []
        for kind, _, offset, _, gpa, stored, size, _ in self._programs():
            if kind != _PT_LOAD:
                continue
            if stored and offset + stored > len(self._data):
                end = offset + stored
                raise DumpError(f"segment of GPA {gpa:#x} ends at {end:#x}, the file at {len(self._data):#x}")
            pieces.append(_piece(self._data, gpa, offset, stored, stored if self.is_core else size))
        if not pieces:
            raise DumpError(f"none of the ELF file's {self._program_count} program headers loads memory")
        return PhysicalMemory(merged(pieces) if self.is_core else pieces)

    def _programs(self) -> Iterator[tuple[int, ...]]:
        for number in range(self._program_count):
            program = self._class.program
            fields = self._unpack(program, self._program_offset + number * program.size, "program header")
            yield tuple(fields[place] for place in self._class.order)

    def cpus(self) -> list[Cpu]:
        """The CPUs whose registers QEMU has dumped, in its order."""
        found: list[Cpu] = []
        for kind, _, offset, _, _, size, _, _ in self._programs():
            if kind == _PT_NOTE:
                found.extend(cpus_of(bytes(self._data[offset : offset + size])))
        return found

    def sections(self) -> list[ElfSection]:
        """The sections that are in memory, in the order of the file."""
        section = self._class.section
        headers = [
            self._unpack(section, self._section_offset + number * section.size, "section header")
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
