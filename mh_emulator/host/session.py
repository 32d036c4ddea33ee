"""What the host asks of a helper during a migration, one call an operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from mh_abi import abi
from mh_emulator.host.ring import Completion, HelperRefused, Lane, Request, Result, Ring, Sealed, Status

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
    flags: int = 0
    """Besides MH_BATCH_LIST."""

    def submit(self, ring: Lane, op: int, slot: int = 0) -> Completion:
        """Have it served."""
        if self.listed:
            ring.put_list(slot, self.listed)
        return ring.serve([self.request(op, slot)])[0]

    def request(self, op: int, slot: int = 0) -> Request:
        """The submission for it."""
        if self.listed:
            flags = self.flags | abi.MH_BATCH_LIST
            return Request(op, slot=slot, count=len(self.listed), chunk=self.chunk, flags=flags)
        return Request(op, slot=slot, count=self.count, chunk=self.chunk, address=self.address, flags=self.flags)

    @property
    def pages(self) -> int:
        """How many pages it names."""
        return len(self.listed) or self.count

    def packet_slots(self, slot: int = 0) -> range:
        """Where its packets lie."""
        return range(slot, slot + self.pages, self.chunk)


def runs(addresses: Sequence[int], chunk: int, longest: int = abi.MH_RING_SLOTS) -> Iterator[Batch]:
    """Batches for these request addresses, in their order: neighbours make runs, in packets of `chunk` pages."""
    start = 0
    for end in range(1, len(addresses) + 1):
        follows = end < len(addresses) and addresses[end] == addresses[end - 1] + abi.MH_PAGE_BYTES
        if not follows or end - start == longest:
            yield Batch(address=addresses[start], count=end - start, chunk=min(chunk, end - start))
            start = end


def greet(ring: Ring) -> bytes:
    """Ask for the helper's hello."""
    ring.ask("hello", Request(Op.MH_OP_HELLO))
    return ring.take_hello(0)


def begin(ring: Ring, role: int, peer_hello: bytes, rings: int = 1) -> int:
    """Start a session of that many rings in that role, on ring 0; return the version that is spoken."""
    ring.put_packet(0, peer_hello)
    return ring.ask("start", Request(Op.MH_OP_START, role=role, count=rings)).protocol


def join(ring: Ring) -> None:
    """Take part in the session that ring 0 has started."""
    ring.ask("join", Request(Op.MH_OP_JOIN))


def connect(source: Ring, target: Ring) -> None:
    """Exchange hellos and start both sides of a session of one ring. Raises `HelperRefused`."""
    connect_all([source], [target])


def connect_all(sources: Sequence[Ring], targets: Sequence[Ring]) -> None:
    """Start a session of these rings, as many on either side, ring 0 first. Raises `HelperRefused`."""
    source_hello, target_hello = greet(sources[0]), greet(targets[0])
    begin(sources[0], Role.MH_ROLE_SOURCE, target_hello, len(sources))
    begin(targets[0], Role.MH_ROLE_TARGET, source_hello, len(targets))
    for ring in (*sources[1:], *targets[1:]):
        join(ring)


def export_batch(ring: Lane, batch: Batch) -> tuple[list[Sealed], list[Result]]:
    """Seal the pages of `batch`; return its packets (also stale ones where a chunk was refused) and results."""
    results = _serve(ring, batch, "export", Op.MH_OP_EXPORT)
    return [ring.take_sealed(slot) for slot in batch.packet_slots()], results


def import_batch(ring: Lane, batch: Batch, packets: Sequence[Sealed]) -> list[Result]:
    """Open the packets of `batch` into its pages."""
    put_batch(ring, batch, packets)
    return import_put(ring, batch)


def put_batch(ring: Lane, batch: Batch, packets: Sequence[Sealed]) -> None:
    """Write the packets of `batch` where an import of it reads them."""
    for slot, sealed in zip(batch.packet_slots(), packets, strict=True):
        ring.put_sealed(slot, sealed)


def import_put(ring: Lane, batch: Batch) -> list[Result]:
    """Open the packets that were put there for `batch` into its pages."""
    return _serve(ring, batch, "import", Op.MH_OP_IMPORT)


def share(ring: Ring, batch: Batch) -> list[Result]:
    """Tell the helper that the guest shares these pages, or with MH_BATCH_PRIVATE no longer."""
    return _serve(ring, batch, "share", Op.MH_OP_SHARE)


def _serve(ring: Lane, batch: Batch, name: str, op: int) -> list[Result]:
    """What became of the pages. Raises `HelperRefused` for a batch of which the helper has not looked at any."""
    answer = batch.submit(ring, op).status
    results = ring.results(0, batch.pages)
    if answer != first_failure(results):
        raise HelperRefused(name, answer)
    return results


def first_failure(results: Sequence[Result]) -> Status:
    """What became of the first page that was not moved; MH_DONE where all were."""
    statuses = (result.status for result, _ in groupby(results))
    return next((status for status in statuses if status != Status.MH_DONE), Status.MH_DONE)


def end_epoch(source: Ring, target: Ring) -> int:
    """End an epoch on both sides of a stream; return the number of the ring's epoch then. Raises `HelperRefused`."""
    return _agree(source, target, "epoch", Op.MH_OP_EPOCH).epoch


def finish(source: Ring, target: Ring) -> int:
    """End a stream on both sides; return the authenticated number of pages so far. Raises `HelperRefused`."""
    return _agree(source, target, "finish", Op.MH_OP_FINISH).total


def finish_all(sources: Sequence[Ring], targets: Sequence[Ring]) -> int:
    """End all streams, and so the session; return the authenticated number of pages. Raises `HelperRefused`."""
    return [finish(source, target) for source, target in zip(sources, targets, strict=True)][-1]


def _agree(source: Ring, target: Ring, name: str, op: int) -> Completion:
    source.ask(name, Request(op))
    target.put_sealed(0, source.take_sealed(0))
    return target.ask(name, Request(op))


def resume(rings: Sequence[Ring]) -> None:
    """Say, on all rings of one side, that the guest may run at the target: what has moved is not moved again."""
    for ring in rings:
        ring.ask("resume", Request(Op.MH_OP_RESUME))


def abort(ring: Ring) -> None:
    """Make the helper forget its session."""
    ring.ask("abort", Request(Op.MH_OP_ABORT))
