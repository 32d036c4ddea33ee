"""The hand-over: where the helper lies in a guest, as code in that guest says it (payload/abi.h, struct mh_handover).

The guest writes the structure into a page that it shares, and then allows its migration. The host reads the page once
and believes nothing: a tuple that is wrong would give the helper other memory, or hide RAM from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

from mh_abi import abi
from mh_abi.errors import MigrationHelperError
from mh_abi.image import HelperImage
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.topology import Topology

_ADDRESS_BITS = 64


class HandoverError(MigrationHelperError, ValueError):
    """A hand-over that the host refuses; one line with what is wrong and the numbers."""


class Region(NamedTuple):
    """`length` bytes at `main_gpa` of the guest are to be seen at `mirror_gpa` of the mirror."""

    main_gpa: int
    length: int
    mirror_gpa: int
    kind: int

    @property
    def main(self) -> range:
        """Where it lies in the guest."""
        return range(self.main_gpa, self.main_gpa + self.length)

    @property
    def mirror(self) -> range:
        """Where it lies in the mirror."""
        return range(self.mirror_gpa, self.mirror_gpa + self.length)


class Limits(NamedTuple):
    """What a host holds the tuples against."""

    topology: Topology
    ram: range
    """Where the mirror sees RAM by `ram_addr`."""
    physical_bits: int
    """MAXPHYADDR."""


def image_regions(helper: HelperImage, base: int) -> tuple[Region, ...]:
    """The tuples of an image that is seen at mirror GPA `base`."""
    moved = base - helper.descriptor.link_base
    return tuple(Region(r.main_gpa, r.length, r.mirror_gpa + moved, r.kind) for r in helper.regions())


def write(regions: Iterable[Region]) -> bytes:
    """The structure, as a loader in the guest writes it."""
    tuples = [abi.mh_region(**region._asdict()) for region in regions]
    free = [abi.mh_region()] * (abi.MH_HANDOVER_REGIONS - len(tuples))
    return bytes(
        abi.mh_handover(
            magic=abi.MH_HANDOVER_MAGIC, version=abi.MH_ABI_VERSION, count=len(tuples), regions=tuples + free
        ).dumps()
    )


def read(data: bytes, limits: Limits) -> tuple[Region, ...]:
    """Check a private copy of the structure; raise `HandoverError`."""
    found = abi.mh_handover(data)
    if found.magic != abi.MH_HANDOVER_MAGIC:
        raise HandoverError(f"hand-over starts with {found.magic:#x}, not {abi.MH_HANDOVER_MAGIC:#x}")
    if found.version != abi.MH_ABI_VERSION:
        raise HandoverError(f"hand-over has version {found.version:#x}, not {abi.MH_ABI_VERSION:#x}")
    if not 0 < found.count <= abi.MH_HANDOVER_REGIONS:
        raise HandoverError(f"hand-over has {found.count:#x} tuples, not 0x1 to {abi.MH_HANDOVER_REGIONS:#x}")
    tuples = found.regions[: found.count]
    regions = tuple(Region(int(r.main_gpa), int(r.length), int(r.mirror_gpa), int(r.kind)) for r in tuples)
    for number, region in enumerate(regions):
        _check(f"hand-over tuple {number}", region, limits)
    for (first, one), (second, other) in combinations(enumerate(regions), 2):
        for space, a, b in (("main", one.main, other.main), ("mirror", one.mirror, other.mirror)):
            if _overlap(a, b):
                raise HandoverError(
                    f"hand-over tuples {first} and {second}: {space} GPA {_shown(a)} overlaps {_shown(b)}"
                )
    return regions


def _check(name: str, region: Region, limits: Limits) -> None:
    if region.kind not in (abi.MH_REGION_PRIVATE, abi.MH_REGION_SHARED):
        kinds = f"{abi.MH_REGION_PRIVATE:#x} or {abi.MH_REGION_SHARED:#x}"
        raise HandoverError(f"{name}: kind {region.kind:#x} is not {kinds}")
    if not region.length:
        raise HandoverError(f"{name}: length {region.length:#x} at main GPA {region.main_gpa:#x}")
    for space, start in (("main", region.main_gpa), ("mirror", region.mirror_gpa)):
        if (start | region.length) % PAGE_BYTES:
            raise HandoverError(f"{name}: {space} GPA {start:#x} or length {region.length:#x} is not of whole pages")
        if start + region.length > 1 << _ADDRESS_BITS:
            raise HandoverError(f"{name}: {space} GPA {start:#x} with length {region.length:#x} wraps around")
    if not any(b.gpa <= region.main.start and region.main.stop <= b.gpa + b.size for b in limits.topology.blocks):
        ram = ", ".join(_shown(range(b.gpa, b.gpa + b.size)) for b in limits.topology.blocks)
        raise HandoverError(f"{name}: main GPA {_shown(region.main)} leaves RAM, {ram}")
    if _overlap(region.mirror, limits.ram):
        raise HandoverError(
            f"{name}: mirror GPA {_shown(region.mirror)} falls inside the ram_addr range {_shown(limits.ram)}"
        )
    if region.mirror.stop > 1 << limits.physical_bits:
        raise HandoverError(
            f"{name}: mirror GPA {_shown(region.mirror)} exceeds {limits.physical_bits} physical address bits, "
            f"{1 << limits.physical_bits:#x}"
        )


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def _shown(span: range) -> str:
    return f"{span.start:#x} to {span.stop:#x}"
