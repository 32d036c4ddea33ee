"""Where a guest's RAM contents, its program and the helper lie in RAM of a q35-like shape.

The contents fill RAM in `ram_addr` order, half below the PCI hole and half above 4 GiB, around the
pages that the firmware reserves for the helper. So `ram_addr` differs from GPA for half of the guest,
whatever its size. RAM in between is never touched and has no frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from mh_abi.errors import MigrationHelperError
from mh_abi.image import HelperImage
from mh_builder.paging import PAGE_BYTES, whole_pages
from mh_emulator.guest.worker import WORKER_BYTES, Piece, Worker
from mh_emulator.host import handover
from mh_emulator.host.topology import FOUR_GIB, LOW_LIMIT, Topology


class PlacementError(MigrationHelperError, ValueError):
    """RAM contents that do not fit; the message names both numbers."""


@dataclass(frozen=True, slots=True)
class Content:
    """`size` bytes of the RAM contents, from `offset` in them, at GPA `gpa`."""

    gpa: int
    offset: int
    size: int


@dataclass(frozen=True)
class Placement:
    """A decided layout; everything is page-granular."""

    topology: Topology
    contents: tuple[Content, ...]

    def worker(self, rounds: int, helper: HelperImage, base: int) -> Worker:
        """The guest program over these contents; it hands over where `helper` is, for mirror GPA `base`, if it must."""
        pieces = tuple(Piece(content.gpa, content.size) for content in self.contents)
        if helper.home is None or not helper.hands_over:
            return Worker(base=FOUR_GIB, pieces=pieces, rounds=rounds)
        regions = handover.image_regions(helper, base)
        carrier = helper.home + helper.ring_offset
        return Worker(FOUR_GIB, pieces, rounds, carrier, handover.write(regions))


def place(ram_bytes: int, helper: HelperImage) -> Placement:
    """Place `ram_bytes` bytes of contents beside `helper`. Raises `PlacementError`."""
    size = whole_pages(ram_bytes)
    home = 0 if helper.home is None else helper.home
    home_end = 0 if helper.home is None else home + helper.memory_bytes
    room_below = LOW_LIMIT - (home_end - home)
    low = min(-(-size // (2 * PAGE_BYTES)) * PAGE_BYTES, room_below)
    first = min(low, home) if home_end else low
    contents = [Content(0, 0, first)]
    if low > first:
        contents.append(Content(home_end, first, low - first))
    contents.append(Content(FOUR_GIB + WORKER_BYTES, low, size - low))
    below = max(home_end, contents[-2].gpa + contents[-2].size)
    placement = Placement(
        Topology(below=below, above=WORKER_BYTES + size - low),
        tuple(content for content in contents if content.size),
    )
    _check_reach(placement, helper)
    return placement


def _check_reach(placement: Placement, helper: HelperImage) -> None:
    limit = helper.descriptor.ram_limit
    what, end = ("GPA", placement.topology.gpa_end) if helper.by_gpa else ("ram_addr", placement.topology.ram_bytes)
    if helper.vmsa is not None:
        end += PAGE_BYTES  # of the guest's VMSA
    if end > limit:
        raise PlacementError(f"RAM ends at {what} {end:#x}, the image maps addresses below {limit:#x}")
