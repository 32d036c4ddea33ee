"""What the helper does for a batch, counted: instructions on either side, bytes on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mh_abi.errors import MigrationHelperError
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.paging import GIB, PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_emulator.host.session import Batch, export_batch, import_batch
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit
from mh_emulator.pair import Pair, connected_pair

_RAM_LIMIT = 5 * GIB
"""The least that reaches the RAM above the PCI hole."""
_NO_LIMIT = 1 << 40


class CountError(MigrationHelperError):
    """A batch that the helper refuses."""


class Count(NamedTuple):
    """One batch of `pages` in packets of `chunk`."""

    pages: int
    chunk: int
    exported: int
    """Instructions of the source's helper."""
    imported: int
    """Instructions of the target's."""
    wire_bytes: int
    """Headers, tags and data of its packets."""

    @property
    def packets(self) -> int:
        """How many packets they make."""
        return -(-self.pages // self.chunk)


class _Counter:
    """KVM_RUN that counts."""

    def __init__(self) -> None:
        self._total = 0

    def enter(self, vcpu: Vcpu, _seconds: float) -> Exit:
        exit_ = vcpu.run(_NO_LIMIT)
        self._total += vcpu.begun
        return exit_

    def take(self) -> int:
        """Since the last time."""
        total, self._total = self._total, 0
        return total


def count(shapes: Sequence[tuple[int, int]], scheme: str = "regions", part: str = "milan") -> list[Count]:
    """Migrate a batch of each shape, (pages, chunk), of a guest that has no more than these. Raises `CountError`."""
    image = parse_image(build_helper(scheme, Options(ram_limit=_RAM_LIMIT)).data)
    counter = _Counter()
    needed = sum(pages for pages, _ in shapes)
    # Half of the guest's pages lie above the PCI hole.
    pair = connected_pair(image, PARTS[part], 2 * needed, counter.enter)
    address = _run([pair.source.machine.request_address(page) for page in pair.pages], needed)
    found = []
    for pages, chunk in shapes:
        found.append(_count(pair, counter, Batch(address=address, count=pages, chunk=chunk)))
        address += pages * PAGE_BYTES
    return found


def _run(addresses: Sequence[int], pages: int) -> int:
    """The first of so many neighbours."""
    return next(
        first
        for first, last in zip(addresses, addresses[pages - 1 :], strict=False)
        if last == first + (pages - 1) * PAGE_BYTES
    )


def _count(pair: Pair, counter: _Counter, batch: Batch) -> Count:
    counter.take()
    packets, results = export_batch(pair.source.ring, batch)
    exported = counter.take()
    results += import_batch(pair.target.ring, batch, packets)
    imported = counter.take()
    refused = [result.status.name for result in results if result.status]
    if refused:
        raise CountError(f"a batch of {batch.count} pages from {batch.address:#x}: {refused[0]}")
    wire = sum(len(packet.packet) + len(packet.data) for packet in packets)
    return Count(batch.count, batch.chunk, exported, imported, wire)
