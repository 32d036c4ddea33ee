"""What the host asks of a helper during a migration, one call an operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mh_emulator.host.ring import Completion, Request, Result, Ring, Sealed
from payload import abi

Op = abi.mh_op
Role = abi.mh_role


@dataclass(frozen=True, slots=True)
class Batch:
    """Which pages one submission names: a run of `count` pages from `address`, or the pages in `listed`."""

    chunk: int = 1
    """Pages of one packet."""
    address: int = 0
    count: int = 0
    listed: tuple[int, ...] = ()

    def submit(self, ring: Ring, op: int, slot: int = 0) -> Completion:
        """Have it served."""
        if self.listed:
            ring.put_list(slot, self.listed)
        return ring.serve([self.request(op, slot)])[0]

    def request(self, op: int, slot: int = 0) -> Request:
        """The submission for it."""
        if self.listed:
            return Request(op, slot=slot, count=len(self.listed), chunk=self.chunk, flags=abi.MH_BATCH_LIST)
        return Request(op, slot=slot, count=self.count, chunk=self.chunk, address=self.address)

    @property
    def pages(self) -> int:
        """How many pages it names."""
        return len(self.listed) or self.count

    def packet_slots(self, slot: int = 0) -> range:
        """Where its packets lie."""
        return range(slot, slot + self.pages, self.chunk)


def runs(addresses: Sequence[int], chunk: int) -> Iterator[Batch]:
    """Batches for these request addresses, in their order: neighbours make runs, in packets of `chunk` pages."""
    start = 0
    for end in range(1, len(addresses) + 1):
        follows = end < len(addresses) and addresses[end] == addresses[end - 1] + abi.MH_PAGE_BYTES
        if not follows or end - start == abi.MH_RING_SLOTS:
            yield Batch(address=addresses[start], count=end - start, chunk=min(chunk, end - start))
            start = end


def greet(ring: Ring) -> bytes:
    """Ask for the helper's nonce."""
    return ring.ask("hello", Request(Op.MH_OP_HELLO)).nonce


def begin(ring: Ring, role: int, peer_nonce: bytes) -> None:
    """Start a session in that role."""
    ring.ask("start", Request(Op.MH_OP_START, role=role, nonce=peer_nonce))


def connect(source: Ring, target: Ring) -> None:
    """Exchange nonces and start both sides. Raises `HelperRefused`."""
    source_nonce, target_nonce = greet(source), greet(target)
    begin(source, Role.MH_ROLE_SOURCE, target_nonce)
    begin(target, Role.MH_ROLE_TARGET, source_nonce)


def export_batch(ring: Ring, batch: Batch) -> tuple[list[Sealed], list[Result]]:
    """Seal the pages of `batch`; return its packets (also stale ones where a chunk was refused) and results."""
    batch.submit(ring, Op.MH_OP_EXPORT)
    return [ring.take_sealed(slot) for slot in batch.packet_slots()], ring.results(0, batch.pages)


def import_batch(ring: Ring, batch: Batch, packets: Sequence[Sealed]) -> list[Result]:
    """Open the packets of `batch` into its pages."""
    for slot, sealed in zip(batch.packet_slots(), packets, strict=True):
        ring.put_sealed(slot, sealed)
    batch.submit(ring, Op.MH_OP_IMPORT)
    return ring.results(0, batch.pages)


def end_epoch(source: Ring, target: Ring) -> int:
    """End an epoch on both sides; return the number of the next. Raises `HelperRefused`."""
    return _agree(source, target, "epoch", Op.MH_OP_EPOCH).epoch


def finish(source: Ring, target: Ring) -> int:
    """End the session on both sides; return the authenticated number of pages. Raises `HelperRefused`."""
    return _agree(source, target, "finish", Op.MH_OP_FINISH).pages


def _agree(source: Ring, target: Ring, name: str, op: int) -> Completion:
    source.ask(name, Request(op))
    target.put_sealed(0, source.take_sealed(0))
    return target.ask(name, Request(op))


def abort(ring: Ring) -> None:
    """Make the helper forget its session."""
    ring.ask("abort", Request(Op.MH_OP_ABORT))
