"""What lies in a file: an image of ours, also in firmware, an ELF file, a memory dump; known by content."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.firmware.flash import check_size
from mh_builder.firmware.inject import extract
from mh_builder.firmware.volume import SIGNATURE, SIGNATURE_OFFSET
from mh_builder.image.model import Image, PlacedSection
from mh_builder.paging import PAGE_BYTES, Geometry
from mh_builder.parts import PARTS, Part
from mh_builder.report import elf
from mh_builder.report.cpu import Cpu
from mh_builder.report.dump import Dump, chosen, elf_dump, other_kind, read_dump
from mh_builder.report.image import image_layout
from mh_builder.report.kdump import is_kdump
from mh_builder.report.layout import Layout
from mh_builder.report.mapping import ACTED_ON, MARKS
from mh_builder.report.memory_type import Pat
from mh_builder.report.physical import DumpError, PhysicalMemory
from mh_builder.report.reader import read_tables
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET

DEFAULT_PART = "milan"
"""For which images are read, where nothing is said."""

WIDEST = 52
"""Address bits of an entry, where nothing says MAXPHYADDR."""

_MAGIC = abi.MH_DESCRIPTOR_MAGIC.to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class Hints:
    """What a file does not say of itself; None is left to the file, or to the part."""

    part: Part | None = None
    c_bit: int | None = None
    physical_bits: int | None = None
    base: int | None = None
    """GPA of the first byte."""
    cr3: int | None = None
    """The root table of a dump."""
    levels: int | None = None
    """Levels of its tables: 4, 5, or 3 with PAE."""
    cpu: int | None = None
    """Whose tables of a dump: None is the first."""
    pat: Pat | None = None
    """MSR PAT of a dump."""
    marks: bool = False
    """Whether A, D and the bits of software of a dump count; those of an image always do."""
    efer: int | None = None
    """MSR EFER of the CPUs of a dump, which no note of QEMU has."""


def layout_of(image: Image, geometry: Geometry) -> Layout:
    """The layout of an image that was just built, at its link base."""
    if geometry.c_bit is None:
        raise AssertionError("an image is for a part with a C-bit")
    data = parse_image(image.data).relocated(image.space.base, geometry.c_bit)
    return image_layout(data, image.space.base, geometry, image.sections)


def open_layout(data: bytes | mmap.mmap, name: str, hints: Hints) -> Layout:
    """The layout in a file of that name. Raises `DumpError`, `ImageError`, `FirmwareError`."""
    found = _open(data, hints)
    return found if isinstance(found, Layout) else _dump(found, name, hints, chosen(found.cpus, hints.cpu))


def open_every_cpu(data: bytes | mmap.mmap, name: str, hints: Hints) -> list[Layout]:
    """One layout for each CPU of a dump that has other tables than those before. Raises as `open_layout` does.

    CPUs without tables are left out, where there are others: so are those that nobody has started yet.
    """
    found = _open(data, hints)
    if isinstance(found, Layout):
        return [found]
    numbered = [(number, cpu) for number, cpu in enumerate(found.cpus) if cpu.has_tables]
    tables = {(cpu.cr3, cpu.levels): (number, cpu) for number, cpu in reversed(numbered)}
    if not tables:
        return [_dump(found, name, hints, chosen(found.cpus, None))]
    return [_dump(found, f"{name} CPU {number}", hints, cpu) for number, cpu in sorted(tables.values())]


def _open(data: bytes | mmap.mmap, hints: Hints) -> Layout | Dump:
    if hints.cr3 is None and data[:8] == _MAGIC:
        return _ours(bytes(data), None, hints.base, hints)
    if data[:4] == elf.MAGIC:
        return _elf(elf.Elf(data), hints)
    if hints.cr3 is None and data[SIGNATURE_OFFSET : SIGNATURE_OFFSET + len(SIGNATURE)] == SIGNATURE:
        check_size(data)
        return _ours(extract(bytes(data)).blob, None, hints.base, hints)
    other = other_kind(data)
    if other is not None:
        raise DumpError(f"{other}: neither an image nor a memory dump")
    if hints.cr3 is None and not is_kdump(data):
        raise DumpError(
            f"{len(data):#x} bytes that start with {bytes(data[:8]).hex() or 'nothing'} are neither an image, "
            "an ELF file, a kdump nor firmware; a raw memory dump needs --cr3"
        )
    return read_dump(data, hints.base or 0).with_efer(hints.efer)


def _elf(file: elf.Elf, hints: Hints) -> Layout | Dump:
    memory = file.memory()
    first = memory.pieces[0]
    if hints.cr3 is None and memory.read(first.gpa, min(8, first.size)) == _MAGIC:
        base = first.gpa if hints.base is None else hints.base
        return _ours(_flat(memory), _sections(file), base, hints)
    return elf_dump(file).with_efer(hints.efer)


def _flat(memory: PhysicalMemory) -> bytes:
    """The flat image in an ELF file of ours."""
    base = memory.pieces[0].gpa
    size = len(abi.mh_descriptor)
    length = int(
        abi.mh_descriptor(memory.read(base, min(memory.pieces[0].size, PAGE_BYTES)).ljust(size, b"\0")).image_bytes
    )
    data = bytearray(min(length, memory.size))
    for piece in memory.pieces:
        start = piece.gpa - base
        if start < len(data):
            read = memory.read(piece.gpa, min(piece.size, len(data) - start))
            data[start : start + len(read)] = read
    return bytes(data)


def _sections(file: elf.Elf) -> list[PlacedSection]:
    found = []
    for section in file.sections():
        private = section.va < HELPER_VA + SHARED_OFFSET
        offset = section.va - HELPER_VA - (0 if private else SHARED_OFFSET)
        found.append(
            PlacedSection(
                section.name,
                offset,
                section.size,
                stored=section.stored,
                writable=section.writable,
                executable=section.executable,
                private=private,
            )
        )
    return found


def _ours(data: bytes, sections: list[PlacedSection] | None, base: int | None, hints: Hints) -> Layout:
    image = parse_image(data)
    part = hints.part or PARTS[DEFAULT_PART]
    is_fixed = image.descriptor.flags & abi.MH_FLAG_FIXED_CBIT
    c_bit = image.descriptor.c_bit if is_fixed else part.c_bit
    c_bit = c_bit if hints.c_bit is None else hints.c_bit
    bits = part.physical_bits if hints.physical_bits is None else hints.physical_bits
    base = image.descriptor.link_base if base is None else base
    return image_layout(image.relocated(base, c_bit), base, Geometry(bits, c_bit), sections)


def _dump(dump: Dump, name: str, hints: Hints, cpu: Cpu | None) -> Layout:
    part = hints.part
    c_bit = part.c_bit if part and hints.c_bit is None else hints.c_bit
    bits = part.physical_bits if part else WIDEST
    bits = bits if hints.physical_bits is None else hints.physical_bits
    if hints.cr3 is None and cpu is None:
        raise DumpError("the dump does not say CR3; give it with --cr3")
    if hints.cr3 is None and cpu is not None and not cpu.has_tables:
        kind = "no paging" if not cpu.has_paging else "paging without PAE"
        raise DumpError(f"the CPU is in {kind}: CR0 {cpu.cr0:#x}, CR4 {cpu.cr4:#x}; read are tables of 8-byte entries")
    cr3 = cpu.cr3 if hints.cr3 is None and cpu is not None else hints.cr3 or 0
    counted = ACTED_ON | (MARKS if hints.marks else 0)
    geometry = Geometry(bits, c_bit, hints.levels or (cpu.levels if cpu else 4))
    return Layout(name, dump.memory, read_tables(dump.memory, cr3, geometry), None, cpu, dump.cpus, hints.pat, counted)
