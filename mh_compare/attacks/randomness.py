"""A platform whose RDRAND is broken, and a host that makes the most of it."""

from __future__ import annotations

from mh_abi import abi
from mh_compare.arena import Arena, Role, Side
from mh_compare.attacks.attack import Attack
from mh_compare.evidence import nonce_reuse
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, Verdict, harmless, refused, succeeds
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.host.ring import HelperRefused, Sealed
from mh_emulator.host.session import abort, begin, greet


def stick(arena: Arena[Side]) -> Outcome:
    """Have hellos made and the same peer met while RDRAND is broken in each known way; look for nonces that repeat."""
    source = arena.source
    seen = []
    for name, fault in FAULTS.items():
        source.platform.generator.fault = fault
        try:
            outcome = _meet_twice(arena, source)
        except HelperRefused as error:
            outcome = refused(error.status.name)
        if outcome.verdict is Verdict.SUCCEEDS:
            return outcome
        seen.append(f"{name}: {outcome.seen}")
    text = ", ".join(seen)
    return refused(text) if all("MH_NO_ENTROPY" in part for part in seen) else harmless(text)


def _meet_twice(arena: Arena[Side], source: Side) -> Outcome:
    """Two sessions with a peer that says the same both times, in each another page as the first."""
    abort(source.ring)
    hello = arena.peer(greet(source.ring)).hello
    met = [_meet(source, hello, arena.address(page)) for page in range(2)]
    for name in ("nonce", "share"):
        first, second = (bytes(getattr(abi.mh_hello(own), name)) for own, _ in met)
        if first == second:
            return succeeds(f"two hellos have the same {name}")
    (_, one), (_, two) = met
    return nonce_reuse(one, two, arena.plaintext(0), arena.plaintext(1))


def _meet(source: Side, hello: bytes, address: int) -> tuple[bytes, Sealed]:
    """A hello of the source's, and the first packet of the session that follows."""
    abort(source.ring)
    own = greet(source.ring)
    begin(source.ring, Role.MH_ROLE_SOURCE, hello)
    return own, source.export(address)


def relaunch(arena: MirrorArena) -> Outcome:
    """Stop RDRAND and the clock, have the owner launch the guest twice, and meet the same peer both times."""
    abort(arena.source.ring)
    hello = arena.peer(greet(arena.source.ring)).hello
    (_, one), (_, two) = (_meet(_launched_without_chance(arena), hello, arena.address(page)) for page in range(2))
    return nonce_reuse(one, two, arena.plaintext(0), arena.plaintext(1))


def _launched_without_chance(arena: MirrorArena) -> Side:
    machine = arena.launched()
    machine.platform.generator.fault = FAULTS["repeats"]
    side = arena.side(machine)
    machine.mirror.vm.tsc = 0
    return side


_NO_CHANCE = (
    "Two launches with one transport key differ in nothing but what RDRAND gives, and in plain SEV in a clock that is "
    "the host's. No host breaks RDRAND from outside; an owner who fears for it gives every launch a key of its own."
)

ATTACKS = (
    Attack("host-sticks-rdrand", "Host has hellos made while RDRAND is broken", stick),
    Attack(
        "host-relaunches-rdrand",
        "Host has the guest launched again while RDRAND repeats",
        relaunch,
        _NO_CHANCE,
        is_gentle=True,
    ),
)
