"""The SEV metadata of OVMF: memory that the VMM launches together with the firmware, for an SNP guest.

The GUIDed table says where they begin; the IGVM metadata have the same form, and are for what makes IGVM files.
Source: edk2, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm and OvmfIgvmMetadata.asm; QEMU, hw/i386/pc_sysfw_ovmf.c (where
they lie), target/i386/sev.c (how they are launched).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.table import Entry, Table
from mh_builder.paging import GIB, MIB, PAGE_BYTES

_HEADER = struct.Struct("<4sIII")
_ITEM = struct.Struct("<III")
_VERSION = 1
_DISTANCE_BYTES = 4

SEC_MEMORY, SECRETS, CPUID, SVSM_AREA, KERNEL_HASHES = 1, 2, 3, 4, 0x10
METADATA_KINDS = {
    SEC_MEMORY: "SEC memory",
    SECRETS: "secrets",
    CPUID: "CPUID",
    SVSM_AREA: "SVSM calling area",
    KERNEL_HASHES: "kernel hashes",
}
IGVM_HOBS = 0x200
IGVM_KINDS = {0x100: "parameters", 0x101: "memory map", 0x102: "number of vCPUs", IGVM_HOBS: "HOBs"}
_PAGES = (SECRETS, CPUID)
"""Kinds that are one page: the secure processor fills it, or checks it."""

MOST_AREAS = 256
"""OVMF has 7 of them; more are not read."""
METADATA_LIMIT = 256 * MIB
"""All areas together; the measurement hashes a block for each of their pages."""


@dataclass(frozen=True, slots=True)
class Area:
    """Memory that the SEV metadata names: `size` bytes at GPA `gpa`."""

    gpa: int
    size: int
    kind: int

    @property
    def end(self) -> int:
        """First GPA behind the area."""
        return self.gpa + self.size

    @property
    def title(self) -> str:
        """What it is for."""
        return METADATA_KINDS.get(self.kind, f"unknown kind {self.kind:#x}")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What could be read of both, and what is wrong with them, a line each."""

    areas: tuple[Area, ...]
    igvm_areas: tuple[Area, ...]
    findings: tuple[str, ...]


def inspect_metadata(flash: bytes, table: Table) -> Metadata:
    """Read all that there is. Metadata that cannot be read are a finding."""
    areas: list[tuple[Area, ...]] = []
    findings: list[str] = []
    for read in (read_metadata, read_igvm_areas):
        try:
            areas.append(read(flash, table))
        except FirmwareError as error:
            areas.append(())
            findings.append(str(error))
    return Metadata(areas[0], areas[1], (*findings, *metadata_findings(areas[0], len(flash))))


def read_metadata(flash: bytes, table: Table) -> tuple[Area, ...]:
    """The areas in their order, not judged; none where the table names none. Raises `FirmwareError`."""
    return _read(flash, table.find(guids.SEV_METADATA), b"ASEV", "SEV metadata")


def read_igvm_areas(flash: bytes, table: Table) -> tuple[Area, ...]:
    """Where an IGVM file may put its parameters, with kinds of `IGVM_KINDS`. Raises `FirmwareError`."""
    return _read(flash, table.find(guids.IGVM_METADATA), b"IGVM", "IGVM metadata")


def _read(flash: bytes, entry: Entry | None, expected: bytes, name: str) -> tuple[Area, ...]:
    if entry is None:
        return ()
    data = entry.data(flash)
    if len(data) < _DISTANCE_BYTES:
        raise FirmwareError(
            f"{name}: entry at {entry.end:#x} has {len(data):#x} bytes, {_DISTANCE_BYTES:#x} are needed"
        )
    distance = int.from_bytes(data[:_DISTANCE_BYTES], "little")
    start = len(flash) - distance
    if start < 0 or distance < _HEADER.size:
        raise FirmwareError(f"{name}: {distance:#x} bytes below the end of {len(flash):#x}")
    signature, size, version, count = _HEADER.unpack_from(flash, start)
    if (signature, version) != (expected, _VERSION):
        raise FirmwareError(f"{name} at {start:#x}: signature {signature.hex()}, version {version:#x}")
    if size < _HEADER.size + count * _ITEM.size or size > distance:
        raise FirmwareError(f"{name} at {start:#x}: {count:#x} areas in {size:#x} bytes, {distance:#x} are there")
    if count > MOST_AREAS:
        raise FirmwareError(f"{name} at {start:#x}: {count:#x} areas, at most {MOST_AREAS:#x} are read")
    first = start + _HEADER.size
    return tuple(Area(*_ITEM.unpack_from(flash, first + i * _ITEM.size)) for i in range(count))


def metadata_findings(areas: tuple[Area, ...], flash_bytes: int = 0) -> tuple[str, ...]:
    """What no SNP guest can be launched with, or should not be, a line each; none of sound metadata.

    `flash_bytes` of firmware end at 4 GiB, and no area may lie there.
    """
    found = [line for area in areas for line in _of_area(area, 4 * GIB - flash_bytes)]
    found += _launched_twice(areas)
    kinds = Counter(area.kind for area in areas)
    for kind, name in METADATA_KINDS.items():
        if kind != SEC_MEMORY and kinds[kind] > 1:
            found.append(f"SEV metadata: {kinds[kind]:#x} areas of {name}, at most 0x1 is expected")
    total = sum(area.size for area in areas)
    if total > METADATA_LIMIT:
        found.append(f"SEV metadata: areas of {total:#x} bytes, the limit is {METADATA_LIMIT:#x}")
    return tuple(found)


def _of_area(area: Area, limit: int) -> Iterator[str]:
    where = f"SEV metadata: area at {area.gpa:#x}"
    if area.kind not in METADATA_KINDS:
        yield f"{where} is of the unknown kind {area.kind:#x}"
    if not area.size:
        yield f"{where} ({area.title}) has no size"
    elif (area.gpa | area.size) % PAGE_BYTES:
        yield f"{where} of {area.size:#x} bytes is not made of pages"
    elif area.kind in _PAGES and area.size != PAGE_BYTES:
        yield f"{where} ({area.title}) has {area.size:#x} bytes, one page of {PAGE_BYTES:#x} is expected"
    if area.end > limit:
        yield f"{where} ends at {area.end:#x}, memory below the firmware at {limit:#x}"


def _launched_twice(areas: tuple[Area, ...]) -> Iterator[str]:
    """In the order of their addresses, each with the one that reaches furthest before it."""
    reached: Area | None = None
    for area in sorted((area for area in areas if area.size), key=lambda area: (area.gpa, area.end)):
        if reached is not None and area.gpa < reached.end:
            end = min(area.end, reached.end)
            yield (
                f"SEV metadata: {area.gpa:#x} to {end - 1:#x} is launched twice, as {reached.title} and as {area.title}"
            )
        if reached is None or area.end > reached.end:
            reached = area
