"""What a migration costs by size of RAM, rings and chunks: a model, checked against counted runs.

A helper does the same for every page, every packet and every submission, so three numbers a side say all. Time is that
of the page's cipher on this CPU, the slower of the two sides, and of the host's calls; it is bound by the helper, not
by a network. Rings are vCPUs with a core each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mh_abi import abi
from mh_bench.counts import Count
from mh_builder.helper import build_helper
from mh_builder.paging import GIB, PAGE_BYTES
from mh_builder.schemes.space import Options

FITTED = ((1, 1), (2, 1), (2, 2))
"""(pages, chunk) of the batches from which the model is made."""
CHECKED = ((16, 1), (16, 4), (16, 16))
"""Those that it has to predict."""
CHUNKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
RINGS = (1, 4, 16, 64)
RAM = tuple(GIB << shift for shift in range(0, 13, 2))
"""1 GiB to 4 TiB."""
EXIT_SECONDS = 2e-6
"""Of one KVM_RUN and what a host does around it: assumed, not measured."""


class Law(NamedTuple):
    """How one quantity grows: what a batch, a packet and a page add."""

    batch: float
    packet: float
    page: float

    def of(self, pages: float, packets: float, batches: float) -> float:
        """The sum."""
        return batches * self.batch + packets * self.packet + pages * self.page


class Laws(NamedTuple):
    """What grows in a migration."""

    exported: Law
    """Instructions of the source."""
    imported: Law
    """Instructions of the target."""
    wire: Law
    """Bytes."""


class Check(NamedTuple):
    """What was counted for a batch, and what the model says."""

    counted: Count
    exported: float
    imported: float
    wire_bytes: float

    @property
    def error(self) -> float:
        """The largest relative difference."""
        pairs = (
            (self.exported, self.counted.exported),
            (self.imported, self.counted.imported),
            (self.wire_bytes, self.counted.wire_bytes),
        )
        return max(abs(said - seen) / seen for said, seen in pairs)


class Guest(NamedTuple):
    """What is migrated, and by how many rings."""

    ram_bytes: int
    rings: int
    shared_percent: int = 0
    """Of its pages: the host copies them."""


class Point(NamedTuple):
    """A migration of all of a guest's RAM, in packets of `chunk` pages."""

    guest: Guest
    chunk: int
    seconds: float
    submissions: int
    """Of both sides: KVM_RUN calls."""
    wire_bytes: float
    helper_bytes: int
    """Memory of the helper with its rings, built for that RAM."""
    table_bytes: int


def fit(counts: Sequence[Count]) -> Laws:
    """The model, from counts of the shapes `FITTED`."""
    return Laws(*(_law([row[n] for row in map(_quantities, counts)]) for n in range(3)))


def _quantities(count: Count) -> tuple[int, int, int]:
    return count.exported, count.imported, count.wire_bytes


def _law(values: Sequence[int]) -> Law:
    one, two_packets, two_pages = values
    packet = two_packets - two_pages
    page = two_pages - one
    return Law(one - packet - page, packet, page)


def check(laws: Laws, count: Count) -> Check:
    """Compare with a batch that the model was not made from."""
    return Check(count, *(law.of(count.pages, count.packets, 1) for law in laws))


def instructions_per_page(laws: Laws, chunk: int) -> tuple[float, float]:
    """Give those of the source and of the target, in full submissions."""
    pages = abi.MH_RING_SLOTS
    exported, imported = (law.of(pages, pages / chunk, 1) / pages for law in (laws.exported, laws.imported))
    return exported, imported


def point(laws: Laws, page_seconds: float, guest: Guest, chunk: int = 16) -> Point:
    """One place of a curve; `page_seconds` is the cipher's time for a page on the slower side."""
    pages = guest.ram_bytes // PAGE_BYTES * (100 - guest.shared_percent) // 100
    batches = -(-pages // abi.MH_RING_SLOTS)
    image = build_helper("regions", Options(ram_limit=guest.ram_bytes, vcpus=guest.rings))
    return Point(
        guest=guest,
        chunk=chunk,
        seconds=(pages * page_seconds + batches * EXIT_SECONDS) / guest.rings,
        submissions=2 * batches,
        wire_bytes=laws.wire.of(pages, pages / chunk, batches),
        helper_bytes=image.memory_bytes,
        table_bytes=image.table_bytes,
    )
