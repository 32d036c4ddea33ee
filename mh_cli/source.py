"""What a verb is to look at: an image of ours, also in firmware, an ELF file, a memory dump; known by content."""

from __future__ import annotations

import argparse
import mmap
from pathlib import Path

from mh_abi import abi
from mh_abi.image import ImageError, parse_image
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import check_size
from mh_builder.firmware.inject import extract
from mh_builder.firmware.volume import SIGNATURE, SIGNATURE_OFFSET
from mh_builder.image.model import Image, PlacedSection
from mh_builder.paging import PAGE_BYTES, Geometry
from mh_builder.parts import PARTS
from mh_builder.report import elf
from mh_builder.report.image import image_layout
from mh_builder.report.layout import Layout
from mh_builder.report.memory import DumpError, PhysicalMemory, map_file, raw_dump
from mh_builder.report.reader import read_tables
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET
from mh_cli import options
from mh_cli.errors import UsageError

WHAT = "flat image, ELF file, firmware with the helper in it, or memory dump"
"""What `read_layout` reads, for people."""

DEFAULT_PART = "milan"
WIDEST = 52
"""Address bits of an entry, where nothing says MAXPHYADDR."""

_MAGIC = abi.MH_DESCRIPTOR_MAGIC.to_bytes(8, "little")


def add_memory(parser: argparse.ArgumentParser) -> None:
    """How to read the file: the processor, and what a dump does not say of itself."""
    group = parser.add_argument_group("memory")
    group.add_argument(
        "--part", choices=sorted(PARTS),
        help=f"processor (default: {DEFAULT_PART} for images; for dumps no C-bit and MAXPHYADDR {WIDEST})",
    )  # fmt: skip
    group.add_argument("--c-bit", type=options.bit, metavar="BIT", help="C-bit (default: the image's or the part's)")
    group.add_argument("--physical-bits", type=options.bit, metavar="BITS", help="MAXPHYADDR (default: the part's)")
    group.add_argument(
        "--base",
        type=options.size,
        metavar="GPA",
        help="GPA of the first byte (default: the image's own; 0 for raw dumps)",
    )
    group.add_argument("--cr3", type=options.size, metavar="CR3", help="root table of a dump (QEMU's ELF dumps say it)")
    group.add_argument("--la57", action="store_true", help="5-level tables (QEMU's ELF dumps say it)")


def read_layout(path: Path, arguments: argparse.Namespace) -> Layout:
    """The layout of a file. Raises `DumpError`, `ImageError`, `UsageError`."""
    data = _open(path)
    try:
        return _recognise(data, path.stem, arguments)
    except (DumpError, FirmwareError, ImageError) as error:
        raise type(error)(f"{path}: {error}") from None


def layout_of(image: Image, geometry: Geometry) -> Layout:
    """The layout of an image that was just built, at its link base."""
    if geometry.c_bit is None:
        raise AssertionError("an image is for a part with a C-bit")
    data = parse_image(image.data).relocated(image.space.base, geometry.c_bit)
    return image_layout(data, image.space.base, geometry, image.sections)


def _open(path: Path) -> bytes | mmap.mmap:
    try:
        if not path.is_file():
            path.stat()
            raise UsageError(f"{path} is no regular file")
        return map_file(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _recognise(data: bytes | mmap.mmap, name: str, arguments: argparse.Namespace) -> Layout:
    if arguments.cr3 is None and data[:8] == _MAGIC:
        return _ours(bytes(data), None, arguments.base, arguments)
    if data[:4] == elf.MAGIC:
        return _elf(elf.Elf(data), name, arguments)
    if arguments.cr3 is None and data[SIGNATURE_OFFSET : SIGNATURE_OFFSET + len(SIGNATURE)] == SIGNATURE:
        check_size(data)
        return _ours(extract(bytes(data)).blob, None, arguments.base, arguments)
    if arguments.cr3 is None:
        raise DumpError(
            f"{len(data):#x} bytes that start with {bytes(data[:8]).hex() or 'nothing'} are neither an image, "
            "an ELF file nor firmware; a raw memory dump needs --cr3"
        )
    return _dump(raw_dump(data, arguments.base or 0), name, arguments, arguments.cr3, 4)


def _elf(file: elf.Elf, name: str, arguments: argparse.Namespace) -> Layout:
    memory = file.memory()
    first = memory.pieces[0]
    if arguments.cr3 is None and memory.read(first.gpa, min(8, first.size)) == _MAGIC:
        base = first.gpa if arguments.base is None else arguments.base
        return _ours(_flat(memory), _sections(file), base, arguments)
    control = file.control()
    if arguments.cr3 is None and control is None:
        raise DumpError("the ELF file does not say CR3; give it with --cr3")
    cr3 = control.cr3 if arguments.cr3 is None and control else arguments.cr3
    return _dump(memory, name, arguments, cr3, control.levels if control else 4)


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
            part = memory.read(piece.gpa, min(piece.size, len(data) - start))
            data[start : start + len(part)] = part
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


def _ours(data: bytes, sections: list[PlacedSection] | None, base: int | None, arguments: argparse.Namespace) -> Layout:
    image = parse_image(data)
    part = PARTS[arguments.part or DEFAULT_PART]
    is_fixed = image.descriptor.flags & abi.MH_FLAG_FIXED_CBIT
    c_bit = image.descriptor.c_bit if is_fixed else part.c_bit
    c_bit = c_bit if arguments.c_bit is None else arguments.c_bit
    bits = part.physical_bits if arguments.physical_bits is None else arguments.physical_bits
    base = image.descriptor.link_base if base is None else base
    return image_layout(image.relocated(base, c_bit), base, _geometry(bits, c_bit, 4), sections)


def _dump(memory: PhysicalMemory, name: str, arguments: argparse.Namespace, cr3: int, levels: int) -> Layout:
    part = PARTS.get(arguments.part or "")
    c_bit = part.c_bit if part and arguments.c_bit is None else arguments.c_bit
    bits = part.physical_bits if part else WIDEST
    bits = bits if arguments.physical_bits is None else arguments.physical_bits
    geometry = _geometry(bits, c_bit, 5 if arguments.la57 else levels)
    return Layout(name, memory, read_tables(memory, cr3, geometry))


def _geometry(bits: int, c_bit: int | None, levels: int) -> Geometry:
    if not 32 <= bits <= WIDEST:
        raise UsageError(f"MAXPHYADDR {bits} is not in 32 to {WIDEST}")
    if c_bit is not None and not 32 <= c_bit < WIDEST:
        raise UsageError(f"C-bit {c_bit} is not in 32 to {WIDEST - 1}")
    return Geometry(bits, c_bit, levels)
