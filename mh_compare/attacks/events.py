"""The host injects events: EVENTINJ has every vector, with an error code or without, whatever the vector is."""

from __future__ import annotations

from collections import Counter

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_compare.arena import Arena, Side, export_entry
from mh_compare.attacks.attack import Attack
from mh_compare.outcome import INSTRUCTIONS, Outcome, Verdict, by_exit, detected, harmless, succeeds
from mh_compare.stored import variables
from mh_emulator.cpu.eventinj import EventInjection, Kind
from mh_emulator.kvm.exits import Reason
from mh_emulator.peer import SessionKeys

_EVENTS = (
    EventInjection(Kind.INTR, 14),
    EventInjection(Kind.EXCEPTION, 14, 0),
    EventInjection(Kind.EXCEPTION, 28),
    EventInjection(Kind.EXCEPTION, 29, 0x400),
    EventInjection(Kind.EXCEPTION, 3, 0),
    EventInjection(Kind.NMI),
    EventInjection(Kind.INTR, 0x80),
    EventInjection(Kind.SOFTWARE, 8),
)
"""Page faults with and without an error code, #HV, #VC, one that never has an error code, and what has no gate."""

_ZEROS = bytes(PAGE_BYTES)

_PLACES = (60, 300, 2000, 6000)
"""Instructions of an export before the event; the last are in the cipher."""


def inject(arena: Arena[Side]) -> Outcome:
    """Inject each of the events into a source at work; look for its keys, and at the guest."""
    seen = Counter[str]()
    verdicts = set()
    for number, event in enumerate(_EVENTS):
        outcome = _trial(arena.fresh(), event, _PLACES[number % len(_PLACES)])
        if outcome.verdict is Verdict.SUCCEEDS:
            return outcome
        verdicts.add(outcome.verdict)
        seen[outcome.seen] += 1
    text = "; ".join(f"{number} x {what}" for what, number in sorted(seen.items()))
    return detected(text) if Verdict.DETECTED in verdicts else harmless(text)


def inject_at_rest(arena: Arena[Side]) -> Outcome:
    """Inject a page fault into a source that halts, and then have it serve."""
    return _trial(arena, EventInjection(Kind.EXCEPTION, 14, 0), 0)


def _trial(arena: Arena[Side], event: EventInjection, instructions: int) -> Outcome:
    source = arena.source
    keys = arena.alone(source)
    vcpu = source.vcpu
    if instructions:
        source.ring.submit(export_entry(arena.address(1)))
        if vcpu.run(instructions).reason is not Reason.LIMIT:
            raise AssertionError(f"the helper is done after {instructions} instructions")
    vcpu.inject_event(event)
    exit_ = vcpu.run(INSTRUCTIONS)
    if any(source.read_guest(address) != arena.plaintext(page) for page, address in enumerate(arena.ram)):
        return succeeds(f"{event} changes the guest's RAM")
    header = source.ring.header()
    is_fault = header.state == abi.mh_ring_state.MH_RING_FAULT
    outcome = by_exit(exit_, header.fault if is_fault else None)
    if outcome is None:
        return succeeds(f"{event}: the helper goes on, in ring state {header.state}")
    if is_fault and _holds(source, arena, keys):
        return succeeds(f"{event}: the helper stops, and its keys stay")
    return detected("the fault handler wipes the keys") if is_fault else outcome


def _holds(side: Side, arena: Arena[Side], keys: SessionKeys) -> bool:
    """Whether any of the helper's private variables holds a key of the session, or a half of one."""
    streams = [keys.stream(number).page_key for number in (0, abi.MH_STREAM_URGENT)]
    halves = [key[at : at + 16] for key in (keys.key, *streams) for at in (0, 16)]
    data = side.helper_pages(variables(arena.candidate.image))
    pages = (data[at : at + PAGE_BYTES] for at in range(0, len(data), PAGE_BYTES))
    held = b"".join([page for page in pages if page != _ZEROS])
    return any(half in held for half in halves)


ATTACKS = (
    Attack("host-injects-events", "Host injects events that fit no vector into a helper at work", inject),
    Attack("host-injects-at-rest", "Host injects a page fault into a helper that halts", inject_at_rest),
)
