"""Images that no linker should make: their digest is right, and what they say of themselves makes no sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES

Wrong = Callable[[Any], int]
"""A value that a field must not have, made from the sound structure."""


def constant(value: int) -> Wrong:
    return lambda _: value


def more(field: str, by: int) -> Wrong:
    return lambda structure: int(getattr(structure, field)) + by


FIELDS: list[tuple[str, Wrong]] = [
    ("magic", constant(0)),
    ("version", more("version", 1)),
    *(("scheme", constant(value)) for value in (0, 1, 4, 5, 32 + 3)),
    ("descriptor_bytes", more("descriptor_bytes", 8)),
    *(("flags", constant(value)) for value in (abi.MH_FLAG_FIXED_CBIT, 16, 1 << 63)),
    *(("image_bytes", more("image_bytes", by)) for by in (-PAGE_BYTES, 1)),
    *(("memory_bytes", more("memory_bytes", by)) for by in (-PAGE_BYTES, 1, 1 << 32)),
    ("memory_bytes", constant((1 << 64) - PAGE_BYTES)),
    *(("link_base", more("link_base", by)) for by in (1, 1 << 50)),
    *(("home", constant(value)) for value in (1, 0x500_0000, 1 << 32, 0xFFFF_F000, abi.MH_NO_HOME)),
    *(("window", constant(value)) for value in (1, 1 << 51)),
    ("window", more("link_base", 0)),
    *(("ram_limit", constant(value)) for value in (0, 4095, 1 << 52)),
    *(("cr3", more("cr3", by)) for by in (1, -(1 << 30), 1 << 30)),
    *(("entry64", constant(value)) for value in (0, 1 << 60)),
    *(("stack64", constant(value)) for value in (8, 1 << 60)),
    ("c_bit", constant(51)),
    *(("ring_offset", more("ring_offset", by)) for by in (1, PAGE_BYTES)),
    *(("ring_offset", constant(value)) for value in (0, PAGE_BYTES)),
    *(("ring_count", constant(value)) for value in (0, 0xFFFF_FFFF)),
    ("ring_count", more("ring_count", 1)),
    *(("secret_offset", more("secret_offset", by)) for by in (8, 1 << 28)),
    ("secret_offset", constant(0)),
    ("secret_offset", more("ring_offset", 0)),
    *(("secret_bytes", constant(value)) for value in (0, 8, 1 << 31, 0xFFFF_F000)),
    *(("relocation_offset", constant(value)) for value in (4, 0xFFFF_FFF8)),
    *(("relocation_count", constant(value)) for value in (1 << 29, 0xFFFF_FFFF)),
    *(("region_offset", constant(value)) for value in (4, 1 << 31, 0xFFFF_FFF8)),
    *(("region_count", constant(value)) for value in (0, abi.MH_HANDOVER_REGIONS + 1, 0xFFFF_FFFF)),
    *(("entry32", constant(value)) for value in (1, 1 << 32)),
    ("entry32", more("link_base", PAGE_BYTES)),
    *(("vmsa_offset", constant(value)) for value in (1, 1 << 51)),
    ("ring_stride", more("ring_stride", PAGE_BYTES)),
    ("vcpu_stride", constant(8)),
]
"""(field of the descriptor, a wrong value), for an image of `regions` and C-bit 51."""

CR3 = abi.mh_descriptor.fields["cr3"].offset

RELOCATIONS: list[tuple[Wrong, int, int]] = [
    (more("image_bytes", -8), 2, 1), (more("image_bytes", 0), 1, 1), (constant(0x6004), 1, 1),
    (constant(0x6000), 1, 4), (constant(CR3 - 8), 1, 1), (constant(CR3), 2, 1),
    (more("relocation_offset", 0), 1, 1), (constant(0xFFFF_FFF8), 1, 1), (constant(0x1000), 0xFFFF, 1),
]  # fmt: skip
"""(offset, from the descriptor; count; kinds) of the first relocation."""

TUPLES: list[tuple[int, str, Wrong]] = [
    (0, "main_gpa", more("main_gpa", PAGE_BYTES)), (0, "main_gpa", constant(0)), (0, "length", constant(0)),
    (0, "length", more("length", 1)), (0, "length", constant(1 << 40)), (0, "mirror_gpa", constant(1 << 51)),
    (0, "mirror_gpa", more("mirror_gpa", 8)), (0, "mirror_gpa", constant(0)), (0, "kind", constant(1)),
    (1, "kind", constant(0)), (1, "kind", constant(2)), (1, "kind", constant(1 << 32)),
    (1, "main_gpa", more("main_gpa", 1)), (1, "main_gpa", constant((1 << 64) - PAGE_BYTES)),
    (1, "mirror_gpa", more("mirror_gpa", PAGE_BYTES)), (1, "length", more("length", PAGE_BYTES)),
]  # fmt: skip
"""(number of the tuple, field, a wrong value made from the tuple)."""


def cut(data: bytes, size: int) -> bytes:
    return data[:size]


def with_field(data: bytes, field: str, wrong: Wrong) -> bytes:
    descriptor = abi.mh_descriptor(data)
    setattr(descriptor, field, wrong(descriptor))
    return bytes(descriptor.dumps()) + data[len(abi.mh_descriptor) :]


def with_relocation(data: bytes, offset: Wrong, count: int, kinds: int) -> bytes:
    descriptor = abi.mh_descriptor(data)
    record = abi.mh_relocation(offset=offset(descriptor), count=count, kinds=kinds).dumps()
    place = descriptor.relocation_offset
    return data[:place] + bytes(record) + data[place + len(record) :]


def with_tuple(data: bytes, index: int, field: str, wrong: Wrong) -> bytes:
    place = int(abi.mh_descriptor(data).region_offset) + index * len(abi.mh_region)
    region = abi.mh_region(data[place : place + len(abi.mh_region)])
    setattr(region, field, wrong(region))
    return data[:place] + bytes(region.dumps()) + data[place + len(region) :]


def fixed_to(data: bytes, c_bit: int) -> bytes:
    """For a part with this C-bit only."""
    return with_field(with_field(data, "flags", constant(3)), "c_bit", constant(c_bit))


def moved(data: bytes, by: int) -> bytes:
    """The mirror sees it elsewhere, so its tuples say."""
    for index in range(abi.mh_descriptor(data).region_count):
        data = with_tuple(data, index, "mirror_gpa", more("mirror_gpa", by))
    return data
