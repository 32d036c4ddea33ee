"""The host asks the helper for what it must not do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import SHARED_OFFSET
from mh_compare.arena import Arena, Op, Side, Status, export_entry
from mh_compare.attacks.attack import Attack
from mh_compare.outcome import Outcome, by_status, detected, refused, succeeds
from mh_emulator.host.session import Batch

_WRAP = 1 << 64

_CHANGES = (2, 60, 150, 400)
"""Instructions after which a request is changed: the first is before it is fetched."""


def export_helper(arena: Arena[Side]) -> Outcome:
    """Export every page of the helper under every number that could reach it."""
    source = arena.exporting()
    addresses = [*aliases(arena, range(0, arena.helper.memory_bytes, PAGE_BYTES))]
    statuses = Counter[abi.mh_status]()
    for start in range(0, len(addresses), abi.MH_RING_SLOTS):
        batch = Batch(listed=tuple(addresses[start : start + abi.MH_RING_SLOTS]))
        batch.submit(source.ring, Op.MH_OP_EXPORT)
        statuses.update(result.status for result in source.ring.results(0, batch.pages))
    return _tally(statuses)


def import_over_helper(arena: Arena[Side]) -> Outcome:
    """Import a packet that is good, but for its address, over the first and last page of each part of the helper."""
    source, target = arena.connect()
    sealed = source.export(arena.address(0))
    before = _helper_bytes(target, len(arena.helper.data))
    sections = arena.candidate.image.sections
    edges = {edge for part in sections for edge in (part.offset, part.offset + (part.pages - 1) * PAGE_BYTES)}
    addresses = [*aliases(arena, sorted(edges))]
    target.ring.put_sealed(0, sealed)
    statuses = Counter[abi.mh_status]()
    for start in range(0, len(addresses), abi.MH_RING_ENTRIES):
        requests = [
            Batch(address=address, count=1).request(Op.MH_OP_IMPORT)
            for address in addresses[start : start + abi.MH_RING_ENTRIES]
        ]
        statuses.update(completion.status for completion in target.ring.serve(requests))
    if _helper_bytes(target, len(arena.helper.data)) != before:
        return succeeds("the helper's code changed")
    return _tally(statuses)


def aliases(arena: Arena[Side], offsets: Sequence[int]) -> Iterator[int]:
    """Request addresses that could name the helper's bytes at `offsets`, were they not checked."""
    source, window = arena.source, arena.helper.descriptor.window
    places = {source.base - window, source.base}
    topology = arena.placement.topology
    if arena.helper.home is not None:
        places |= {arena.helper.home, source.request_address(topology.ram_addr(arena.helper.home))}
    c_mask = 1 << arena.part.c_bit
    for place in sorted(places):
        for offset in offsets:
            address = place + offset
            yield from (
                number % _WRAP
                for number in (address, address | c_mask, address + SHARED_OFFSET, address - 1, address | 1 << 63)
            )


def twice(arena: Arena[Side]) -> Outcome:
    """Export a page again within an epoch, after the guest changed it."""
    source = arena.exporting()
    source.export(arena.address(0))
    return by_status(source.ask(Op.MH_OP_EXPORT, arena.address(0)), "the helper seals the page a second time")


def change_after_check(arena: Arena[Side]) -> Outcome:
    """Change the address of a request at many moments of the helper's work on it."""
    forbidden = export_entry(arena.source.base if arena.helper.home is None else arena.helper.home)
    refusals: set[str] = set()
    for steps in _CHANGES:
        source = arena.exporting()
        at = source.ring.header().head % abi.MH_RING_ENTRIES * len(abi.mh_submission)
        source.ring.submit(export_entry(arena.address(0)))
        source.vcpu.run(steps)
        source.ring.write(abi.MH_RING_SUBMISSIONS + at, forbidden)
        source.run_on()
        status = source.ring.results(0, 1)[0].status
        if status != Status.MH_DONE:
            refusals.add(status.name)
        elif abi.mh_packet(source.ring.take_sealed(0).packet).address != arena.address(0):
            return succeeds("the helper checks one address and exports another")
        source.ask(Op.MH_OP_ABORT)
    return refused(f"before it is fetched: {', '.join(sorted(refusals))}; after that: without effect")


def overrun_ring(arena: Arena[Side]) -> Outcome:
    """Move the tail further than the ring has entries."""
    source = arena.exporting()
    tail = source.ring.header().head + abi.MH_RING_ENTRIES + 1
    source.ring.write(abi.mh_ring.fields["tail"].offset, tail.to_bytes(4, "little"))
    source.run_on()
    state = abi.mh_ring_state(source.ring.header().state)
    if state == abi.mh_ring_state.MH_RING_BROKEN:
        return detected(f"{state.name}: the helper wipes its keys and stops")
    return succeeds("the helper goes on")


def forbidden_order(arena: Arena[Side]) -> Outcome:
    """Use a source as a target: import into the guest that is being exported."""
    source = arena.exporting()
    return by_status(source.put(arena.address(0), source.export(arena.address(0))), "the source imports")


def _tally(statuses: Counter[abi.mh_status]) -> Outcome:
    """Refused, if every single request was."""
    if statuses[Status.MH_DONE]:
        return succeeds(f"{statuses[Status.MH_DONE]} of {statuses.total()} requests are served")
    return refused(", ".join(status.name for status in sorted(statuses)))


def _helper_bytes(side: Side, size: int) -> bytes:
    """The helper's stored image as it sees it."""
    return side.helper_pages(range(0, size, PAGE_BYTES))


ATTACKS = (
    Attack("host-exports-helper", "Host exports the helper under every alias", export_helper, is_gentle=True),
    Attack(
        "host-imports-over-helper",
        "Host imports over the helper under every alias",
        import_over_helper,
        is_gentle=True,
    ),
    Attack("host-exports-twice", "Host exports a page twice in an epoch", twice, is_gentle=True),
    Attack("host-changes-request", "Host changes a request while it is served", change_after_check, is_gentle=True),
    Attack("host-imports-at-source", "Host imports into a source", forbidden_order, is_gentle=True),
    Attack("host-overruns-ring", "Host moves the ring's tail too far", overrun_ring),
)
