"""Pairs of images at an edge: one loads, and the other differs from it in what one check alone can see."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

from emulator_tests.firmware.wrong import Wrong, constant, more, moved, with_field
from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS

C_BIT_GPA = 1 << PARTS["milan"].c_bit
_TABLE = 0x2000
"""Where in the file a longer table goes: over code, which no loader looks at."""

Change = Callable[[bytes], bytes]


class Edge(NamedTuple):
    """Two changes of the image of `scheme`: the first leaves it sound, the second does not."""

    scheme: str
    sound: Change
    wrong: Change


def fields(**changes: Wrong | int) -> Change:
    """Several fields of the descriptor at once, one after the other."""

    def change(data: bytes) -> bytes:
        made = {name: constant(value) if isinstance(value, int) else value for name, value in changes.items()}
        return reduce(lambda changed, name: with_field(changed, name, made[name]), made, data)

    return change


def linked_up_to(end: int) -> Change:
    """For a mirror that sees the helper below `end`, and its VMSAs at 0, so its descriptor says."""

    def change(data: bytes) -> bytes:
        descriptor = abi.mh_descriptor(data)
        base = end - descriptor.memory_bytes
        root = base + descriptor.cr3 - descriptor.link_base
        return fields(link_base=base, cr3=root, vmsa_offset=-base % (1 << 64))(data)

    return change


def seen_up_to(end: int) -> Change:
    """The tuples show the helper below `end`, modulo 2^64."""

    def change(data: bytes) -> bytes:
        descriptor = abi.mh_descriptor(data)
        by = (end - descriptor.memory_bytes) % (1 << 64) - descriptor.link_base
        return moved(data, by)

    return change


def many_tuples(count: int) -> Change:
    """So many times the first tuple."""

    def change(data: bytes) -> bytes:
        start = abi.mh_descriptor(data).region_offset
        table = data[start : start + len(abi.mh_region)] * count
        changed = data[:_TABLE] + table + data[_TABLE + len(table) :]
        return fields(region_offset=_TABLE, region_count=count)(changed)

    return change


_HOMELY = fields(flags=0, window=1 << 40)
"""What could lie anywhere, and whose mirror has RAM elsewhere."""

EDGES: dict[str, Edge] = {
    "the rings are pages": Edge(
        "alias-gpa",
        fields(memory_bytes=more("memory_bytes", PAGE_BYTES), ring_offset=more("ring_offset", PAGE_BYTES)),
        fields(memory_bytes=more("memory_bytes", PAGE_BYTES), ring_offset=more("ring_offset", 8)),
    ),
    "the tuples are words": Edge(
        "alias-gpa", fields(region_offset=more("region_offset", 8)), fields(region_offset=more("region_offset", 4))
    ),
    "the relocations are words": Edge(
        "regions",
        fields(relocation_count=0, relocation_offset=more("relocation_offset", 8)),
        fields(relocation_count=0, relocation_offset=more("relocation_offset", 4)),
    ),
    "a scheme without tuples": Edge(
        "alias-gpa",
        fields(scheme=abi.mh_scheme.MH_SCHEME_ALIAS_WINDOW),
        fields(scheme=abi.mh_scheme.MH_SCHEME_REGIONS),
    ),
    "without tuples it is linked for its home": Edge(
        "alias-gpa", _HOMELY, lambda data: fields(link_base=more("link_base", PAGE_BYTES))(_HOMELY(data))
    ),
    "it is linked below the C-bit": Edge("regions", linked_up_to(C_BIT_GPA), linked_up_to(C_BIT_GPA + PAGE_BYTES)),
    "the mirror sees it below the C-bit": Edge("regions", seen_up_to(C_BIT_GPA), seen_up_to(C_BIT_GPA + PAGE_BYTES)),
    "the mirror sees it in one piece": Edge("regions", seen_up_to(C_BIT_GPA), seen_up_to(PAGE_BYTES)),
    "the tuples fit into the hand-over": Edge(
        "regions", many_tuples(abi.MH_HANDOVER_REGIONS), many_tuples(abi.MH_HANDOVER_REGIONS + 1)
    ),
}  # fmt: skip
"""By what the second image lacks, on a part whose C-bit is `C_BIT_GPA`."""
