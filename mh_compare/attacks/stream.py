"""The host against the stream between two helpers."""

from __future__ import annotations

from mh_abi import abi
from mh_compare.arena import Arena, Op, Side, Status
from mh_compare.attacks.attack import Attack
from mh_compare.guest_os import GuestOs, read_word
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, by_status, detected, harmless, refused, succeeds
from mh_emulator.host.ring import Sealed
from mh_emulator.host.session import abort, connect, end_epoch, finish


def replay(arena: Arena[Side]) -> Outcome:
    """Import a packet a second time, also as if it were for another address."""
    source, target = arena.connect()
    first, second = arena.address(0), arena.address(1)
    sealed = source.export(first)
    _take(target, first, sealed)
    again = target.put(first, sealed)
    return by_status(again or target.put(second, _with(sealed, address=second)), "the target takes the packet again")


def replay_epoch(arena: Arena[Side]) -> Outcome:
    """Import the page's packet of an earlier epoch in the place of the new one."""
    source, target = arena.connect()
    old = source.export(arena.address(0))
    _take(target, arena.address(0), old)
    end_epoch(source.ring, target.ring)
    source.export(arena.address(0))
    return by_status(target.put(arena.address(0), old), "the target goes back to the old page")


def replay_stream(arena: Arena[Side]) -> Outcome:
    """Give a recorded stream to the target in a later session, with the source's old nonce."""
    source, target = arena.connect()
    recorded = source.export(arena.address(0))
    abort(target.ring)
    abort(source.ring)
    connect(source.ring, target.ring)
    return by_status(target.put(arena.address(0), recorded), "the target takes a stream of another session")


def relabel_session(arena: Arena[Side]) -> Outcome:
    """Import a packet of an earlier session, with the identity of the new one written into it."""
    source, target = arena.connect()
    recorded = source.export(arena.address(0))
    abort(target.ring)
    abort(source.ring)
    connect(source.ring, target.ring)
    session = abi.mh_packet(source.export(arena.address(0)).packet).session
    status = target.put(arena.address(0), _with(recorded, session=session))
    return by_status(status, "the target takes a stream of another session")


def reorder(arena: Arena[Side]) -> Outcome:
    """Import the second packet first."""
    source, target = arena.connect()
    _, second = source.export(arena.address(0)), source.export(arena.address(1))
    return by_status(target.put(arena.address(1), second), "the target takes the second packet first")


def renumber(arena: Arena[Side]) -> Outcome:
    """Import the second packet first, with the number of the first written into it."""
    source, target = arena.connect()
    _, second = source.export(arena.address(0)), source.export(arena.address(1))
    return by_status(
        target.put(arena.address(1), _with(second, sequence=0)), "the target takes the second packet first"
    )


def drop(arena: Arena[Side]) -> Outcome:
    """Keep back the last packet, then end the session."""
    source, target = arena.connect()
    _take(target, arena.address(0), source.export(arena.address(0)))
    source.export(arena.address(1))
    status = target.ask(Op.MH_OP_FINISH, sealed=source.totals(Op.MH_OP_FINISH))
    if status == Status.MH_DONE:
        return succeeds("the target ends the session without the page")
    return detected(f"the target does not end the session: {status.name}")


def relocate(arena: Arena[Side]) -> Outcome:
    """Import a page at another address."""
    source, target = arena.connect()
    status = target.put(arena.address(1), source.export(arena.address(0)))
    return by_status(status, "the target writes the page elsewhere")


def readdress(arena: Arena[Side]) -> Outcome:
    """Import a page at another address, with that address written into the packet."""
    source, target = arena.connect()
    address = arena.address(1)
    status = target.put(address, _with(source.export(arena.address(0)), address=address))
    return by_status(status, "the target writes the page elsewhere")


def tamper(arena: Arena[Side]) -> Outcome:
    """Flip one bit of the data."""
    source, target = arena.connect()
    sealed = source.export(arena.address(0))
    data = bytes([sealed.data[0] ^ 1]) + sealed.data[1:]
    return by_status(target.put(arena.address(0), Sealed(sealed.packet, data)), "the target takes the changed page")


def forge_again(arena: Arena[Side]) -> Outcome:
    """Forge a packet, then another one, and then give the true one."""
    source, target = arena.connect()
    address, sealed = arena.address(0), source.export(arena.address(0))
    tags = (sealed.packet[:-1] + bytes([sealed.packet[-1] ^ flip]) for flip in (1, 2))
    first, second = (target.put(address, Sealed(packet, sealed.data)) for packet in tags)
    true = target.put(address, sealed)
    if Status.MH_BAD_TAG in (second, true) or Status.MH_DONE in (first, second, true):
        return succeeds("the target lets a host try again")
    return refused(f"{first.name}, which ends the session; the next: {second.name}; the true packet: {true.name}")


def mix(arena: Arena[Side]) -> Outcome:
    """Put the data of one packet behind the header of another."""
    source, target = arena.connect()
    first, second = (source.export(arena.address(page)) for page in (0, 1))
    return by_status(target.put(arena.address(0), Sealed(first.packet, second.data)), "the target takes the mixture")


def keep_running(arena: MirrorArena) -> Outcome:
    """Let the guest go on at the source after its migration has ended."""
    source, target = arena.connect()
    for page in range(len(arena.ram)):
        _take(target, arena.address(page), source.export(arena.address(page)))
    finish(source.ring, target.ring)
    words = [GuestOs(side.machine).run(read_word(0))[:8] for side in (source, target)]
    if words[0] == words[1] == arena.plaintext(0)[:8]:
        return succeeds("one guest runs in two places")
    return harmless("the two guests differ")


def move_again(arena: Arena[Side]) -> Outcome:
    """Move a guest to its end; then again, to a second target."""
    for number, target in enumerate((arena.target, arena.empty(_SECOND_TARGET, arena.secret))):
        abort(arena.source.ring)
        connect(arena.source.ring, target.ring)
        for page in range(len(arena.ram)):
            _take(target, arena.address(page), arena.source.export(arena.address(page)))
        finish(arena.source.ring, target.ring)
        if number and target.read_guest(arena.ram[0]) == arena.plaintext(0):
            return succeeds("two targets have the guest")
    return harmless("the second target has not got the guest")


def _take(target: Side, address: int, sealed: Sealed) -> None:
    """Import a packet that is in order."""
    status = target.put(address, sealed)
    if status != Status.MH_DONE:
        raise AssertionError(f"the target refuses a faithful packet: {status.name}")


def _with(sealed: Sealed, **fields: object) -> Sealed:
    """The packet with some fields replaced, by name."""
    packet = abi.mh_packet(sealed.packet)
    for name, value in fields.items():
        setattr(packet, name, value)
    return Sealed(packet.dumps(), sealed.data)


_SECOND_TARGET = 3
"""Seed of its platform."""

_ONE_OWNER = (
    "The helper has no power over the main VM's vCPUs, and its transport key serves any number of sessions. "
    "The owner can launch one target only, or give each a key of its own."
)

ATTACKS = (
    Attack("host-replays-packet", "Host replays a packet", replay, is_gentle=True),
    Attack("host-replays-epoch", "Host replays a page of an earlier epoch", replay_epoch, is_gentle=True),
    Attack("host-replays-stream", "Host replays a recorded session", replay_stream, is_gentle=True),
    Attack(
        "host-relabels-session",
        "Host mixes sessions: old packet, new session's identity",
        relabel_session,
        is_gentle=True,
    ),
    Attack("host-reorders", "Host reorders packets", reorder, is_gentle=True),
    Attack("host-renumbers", "Host reorders packets and their numbers", renumber, is_gentle=True),
    Attack("host-drops", "Host drops the last packet", drop, is_gentle=True),
    Attack("host-relocates", "Host imports a page at another address", relocate, is_gentle=True),
    Attack(
        "host-readdresses",
        "Host imports a page at another address, written into the packet",
        readdress,
        is_gentle=True,
    ),
    Attack("host-tampers", "Host flips a bit of a packet's data", tamper, is_gentle=True),
    Attack("host-forges-until-lucky", "Host forges tag after tag in one session", forge_again, is_gentle=True),
    Attack("host-mixes", "Host mixes header and data of two packets", mix, is_gentle=True),
    Attack("host-clones-guest", "Host lets the guest run on at the source", keep_running, _ONE_OWNER),
    Attack("host-moves-again", "Host has the guest moved to a second target as well", move_again, _ONE_OWNER),
)
