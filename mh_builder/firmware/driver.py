"""The loader as a DXE driver: its sources, linked at an address of no meaning and written as PE32+.

It refers to itself relative to RIP only, so it runs wherever it is put, without base relocations.
Source: Microsoft PE format; UEFI 2.10, section 2.1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum
from functools import cache

from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile, RelocationKind, assemble
from mh_builder.paging import PAGE_BYTES, whole_pages
from mh_builder.symbols import LinkError, MergedSection, merge

SOURCES = PAYLOAD / "loader"
ENTRY = "loader_entry"

_FILE_ALIGN = 0x200
_HIGH_ENTROPY, _DYNAMIC_BASE, _NX = 0x20, 0x40, 0x100
_SECTIONS = ((".text", 0x6000_0020), (".rodata", 0x4000_0040))
"""Name, characteristics: code that is read and executed, data that are read."""

_NAMES = {".rodata": ".rdata"}


class Finds(Enum):
    """Where a loader finds the image: the source that only such a loader has."""

    VOLUME = "find.s"
    """In a firmware volume, from which DXE dispatches the loader too."""
    HOB = "hob.s"
    """In pages of an IGVM file, which a HOB announces."""


@cache
def loader_objects(finds: Finds = Finds.VOLUME) -> tuple[ObjectFile, ...]:
    """All sources of the loader, assembled. Raises `AssemblyError`."""
    symbols = abi.assembler_symbols()
    others = {other.value for other in Finds if other is not finds}
    paths = sorted(path for path in SOURCES.glob("*.s") if path.name not in others)
    return tuple(assemble(path, symbols=symbols, name=f"payload/loader/{path.name}") for path in paths)


@cache
def build_loader(finds: Finds = Finds.VOLUME) -> bytes:
    """The PE32+ file. Raises `AssemblyError`, `LinkError`."""
    objects = loader_objects(finds)
    merged = {name: merge(objects, name) for name, _ in _SECTIONS}
    addresses = _place(merged)
    symbols = _symbols(objects, merged, addresses)
    if ENTRY not in symbols:
        raise LinkError([f"loader: error: no object defines the global symbol '{ENTRY}'"])
    _resolve(objects, merged, addresses, symbols)
    return _write(merged, addresses, symbols[ENTRY])


def _place(merged: dict[str, MergedSection]) -> dict[str, int]:
    addresses, address = {}, PAGE_BYTES
    for name, section in merged.items():
        addresses[name] = address
        address += whole_pages(section.size)
    return addresses


def _symbols(
    objects: Sequence[ObjectFile], merged: dict[str, MergedSection], addresses: dict[str, int]
) -> dict[str, int]:
    """Addresses: every global name, and every object's own as "object:name"."""
    found: dict[str, int] = {}
    for part in objects:
        for symbol in part.symbols:
            if symbol.section is None:
                continue
            if symbol.section not in merged:
                raise LinkError([f"{part.name}: error: the loader has no section {symbol.section}"])
            value = addresses[symbol.section] + merged[symbol.section].starts.get(part.name, 0) + symbol.value
            found[f"{part.name}:{symbol.name}"] = value
            if symbol.is_global and found.setdefault(symbol.name, value) != value:
                raise LinkError([f"{part.name}: error: symbol '{symbol.name}' is defined twice"])
    return found


def _resolve(
    objects: Sequence[ObjectFile], merged: dict[str, MergedSection], addresses: dict[str, int], symbols: dict[str, int]
) -> None:
    for part in objects:
        for section in part.sections:
            for relocation in section.relocations:
                target = symbols.get(f"{part.name}:{relocation.symbol}", symbols.get(relocation.symbol))
                if target is None:
                    raise LinkError([f"{relocation.place}: error: undefined symbol '{relocation.symbol}'"])
                if relocation.kind is not RelocationKind.REL32:
                    raise LinkError([f"{relocation.place}: error: {relocation.kind.name}: the loader has no address"])
                offset = merged[section.name].starts[part.name] + relocation.offset
                distance = target + relocation.addend - addresses[section.name] - offset
                struct.pack_into("<i", merged[section.name].data, offset, distance)


def _write(merged: dict[str, MergedSection], addresses: dict[str, int], entry: int) -> bytes:
    import lief  # noqa: PLC0415 - it takes longer to import than all else that the command needs

    factory = lief.PE.Factory.create(lief.PE.PE_TYPE.PE32_PLUS)
    if factory is None:
        raise AssertionError("lief makes PE32+ files")
    for name, characteristics in _SECTIONS:
        # lief computes neither the address nor the sizes of a section.
        data = bytes(merged[name].data)
        section = lief.PE.Section(_NAMES.get(name, name))
        section.content = list(data.ljust(_stored(len(data)), b"\0"))
        section.virtual_address = addresses[name]
        section.virtual_size = len(data)
        section.size = _stored(len(data))
        section.characteristics = characteristics
        factory.add_section(section)
    # It warns of the directories that a driver does not have.
    with lief.logging.level_scope(lief.logging.LEVEL.OFF):
        binary = factory.get()
        if binary is None:
            raise AssertionError("lief makes a file of what it was given")
        kinds = lief.PE.Header.CHARACTERISTICS
        binary.header.add_characteristic(kinds.EXECUTABLE_IMAGE)
        binary.header.add_characteristic(kinds.LARGE_ADDRESS_AWARE)
        binary.header.time_date_stamps = 0
        header = binary.optional_header
        header.subsystem = lief.PE.OptionalHeader.SUBSYSTEM.EFI_BOOT_SERVICE_DRIVER
        header.imagebase = 0
        header.addressof_entrypoint = entry
        header.baseof_code = addresses[".text"]
        header.sizeof_code = _stored(merged[".text"].size)
        header.sizeof_initialized_data = _stored(merged[".rodata"].size)
        header.dll_characteristics = _HIGH_ENTROPY | _DYNAMIC_BASE | _NX
        builder = lief.PE.Builder(binary, lief.PE.Builder.config_t())
        builder.build()
        return bytes(builder.raw_bytes())


def _stored(size: int) -> int:
    return -(-size // _FILE_ALIGN) * _FILE_ALIGN
