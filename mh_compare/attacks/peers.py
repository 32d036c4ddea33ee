"""The host, and another tenant of it, against how two helpers get to know each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mh_abi import abi
from mh_builder.schemes.space import Start
from mh_compare.arena import SECRET, TARGET, Arena, Op, Role, Side, Status
from mh_compare.attacks.attack import Attack
from mh_compare.attacks.guest import steal_key
from mh_compare.candidate import candidate
from mh_compare.evidence import nonce_reuse
from mh_compare.guest_os import GuestOs
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, by_status, harmless, refused, succeeds
from mh_emulator.host.ring import Request
from mh_emulator.host.session import abort, begin, connect, greet
from mh_emulator.peer import Peer
from mh_emulator.secret import Secret

TENANT = 3
"""Seed of the platform of another guest."""

OTHER_GUEST = bytes(range(16, 32))


def _answer(side: Side, role: int, hello: bytes) -> abi.mh_status:
    """The status of a START with that hello, for one of the helper's own that is new."""
    greet(_idle(side).ring)
    side.ring.put_packet(0, hello)
    return side.ring.serve([Request(Op.MH_OP_START, role=role, count=1)])[0].status


def _with(hello: bytes, **fields: object) -> bytes:
    """The hello with some fields replaced, by name."""
    changed = abi.mh_hello(hello)
    for name, value in fields.items():
        setattr(changed, name, value)
    return bytes(changed.dumps())


def mix_schemes(arena: MirrorArena) -> Outcome:
    """Give the owner's secret to a target of a scheme whose addresses mean something else."""
    other = "alias-window" if arena.candidate.name == "alias-gpa" else "alias-gpa"
    target = MirrorArena(candidate(other, arena.part.name, arena.start)).target
    connect(_idle(arena.source).ring, target.ring)
    page = arena.ram[-1]
    address = arena.source.request_address(page)
    return by_status(target.put(address, arena.source.export(address)), "the target takes the page at another address")


def downgrade(arena: MirrorArena) -> Outcome:
    """Give the secret of an owner who takes plain SEV to a target without encrypted registers."""
    source = arena.side(arena.launch(arena.site(), secret=SECRET))
    plain = MirrorArena(candidate(arena.candidate.name, arena.part.name, Start.HOST))
    begin(source.ring, Role.MH_ROLE_SOURCE, _greeted(source, plain.target))
    return succeeds("the source seals for a target whose registers the host reads")


def _greeted(source: Side, target: Side) -> bytes:
    greet(source.ring)
    return greet(target.ring)


def edit_hello(arena: Arena[Side]) -> Outcome:
    """Change what the target's hello says, one field at a time."""
    hello = greet(_idle(arena.target).ring)
    statuses = {}
    for name, value in _edits(hello):
        status = _answer(arena.source, Role.MH_ROLE_SOURCE, _with(hello, **{name: value}))
        if status == Status.MH_DONE:
            return succeeds(f"the source starts a session with a peer that says something else: {name}")
        statuses[name] = status.name
    return refused(", ".join(f"{name}: {status}" for name, status in statuses.items()))


def _edits(hello: bytes) -> Iterator[tuple[str, object]]:
    known = abi.mh_hello(hello)
    yield "low", known.low - 1
    yield "high", known.high + 1
    kinds = abi.mh_protection
    others = {kinds.MH_PROTECTION_SEV_SNP.value: kinds.MH_PROTECTION_SEV_ES.value}
    yield "protection", others.get(known.protection, kinds.MH_PROTECTION_SEV_SNP.value)
    yield "flags", known.flags ^ abi.MH_OWNER_STRICT
    yield "addresses", known.addresses ^ 3
    yield "nonce", [known.nonce[0] ^ 1, *known.nonce[1:]]
    yield "share", [known.share[0] ^ 1, *known.share[1:]]
    yield "guest", list(OTHER_GUEST)


def replay_hello(arena: Arena[Side]) -> Outcome:
    """Give the source a hello that its peer has used up, and the packets to that peer."""
    source, target = arena.source, arena.target
    old = greet(_idle(target).ring)
    begin(target.ring, Role.MH_ROLE_TARGET, greet(_idle(source).ring))
    begin(source.ring, Role.MH_ROLE_SOURCE, old)
    recorded = source.export(arena.address(0))
    greet(_idle(target).ring)
    own = greet(_idle(source).ring)
    begin(source.ring, Role.MH_ROLE_SOURCE, old)
    begin(target.ring, Role.MH_ROLE_TARGET, own)
    sealed = source.export(arena.address(1))
    reuse = nonce_reuse(recorded, sealed, arena.plaintext(0), arena.plaintext(1))
    status = target.put(arena.address(1), sealed)
    if status == Status.MH_DONE or reuse.verdict is not harmless("").verdict:
        return succeeds(f"{reuse.seen}; the target answers {status.name}")
    return harmless(f"the source seals for a peer that is gone, under a new key; the target answers {status.name}")


def _idle(side: Side) -> Side:
    abort(side.ring)
    return side


def reflect_hello(arena: Arena[Side]) -> Outcome:
    """Give the source its own hello."""
    own = greet(_idle(arena.source).ring)
    begin(arena.source.ring, Role.MH_ROLE_SOURCE, own)
    return succeeds("the source starts a session with itself")


def foreign_target(arena: Arena[Side]) -> Outcome:
    """Launch the true helper as a target with a secret of the host's own, and have it pass for the guest's."""
    return _pass_for(arena, arena.empty(TARGET, Secret.fresh(arena.secret.protection)))


def tenant(arena: Arena[Side]) -> Outcome:
    """Have the helper of another guest, to which its owner gave the same transport key, pass for the guest's."""
    return _pass_for(arena, arena.empty(TENANT, replace(arena.secret, guest=OTHER_GUEST)))


def _pass_for(arena: Arena[Side], other: Side) -> Outcome:
    """Offer the hello of `other` to the source, as it is and with the identity of the source's guest in it."""
    hello = greet(other.ring)
    honest = _answer(arena.source, Role.MH_ROLE_SOURCE, hello)
    edited = _answer(arena.source, Role.MH_ROLE_SOURCE, _with(hello, guest=list(arena.secret.guest)))
    if Status.MH_DONE in (honest, edited):
        return succeeds("the source starts a session with a helper of another owner")
    return refused(f"{honest.name}; with the guest's identity written into the hello: {edited.name}")


def tenant_kernel(arena: MirrorArena) -> Outcome:
    """Have the kernel of that other guest read the key, and speak for the guest's target without any helper."""
    machine = arena.launch(arena.site(TENANT), secret=replace(arena.secret, guest=OTHER_GUEST))
    stolen = replace(arena.secret, key=steal_key(arena, GuestOs(machine)))
    own = greet(_idle(arena.source).ring)
    known = abi.mh_hello(own)
    thief = Peer(stolen, addresses=known.addresses, protection=known.protection)
    begin(arena.source.ring, Role.MH_ROLE_SOURCE, thief.hello)
    sealed = arena.source.export(arena.address(0))
    if thief.keys(Role.MH_ROLE_TARGET, own).stream(0).open(sealed.packet, sealed.data) == arena.plaintext(0):
        return succeeds("the other guest reads the page")
    return harmless("the other guest does not read the page")


_ONE_KEY = (
    "Who has the transport key can say whatever a hello says. A guest's kernel reads it where the helper lies in the "
    "guest's memory, so a key that serves two guests makes one of them; the owner has to give each its own."
)

ATTACKS = (
    Attack("host-plays-target", "Host runs a target with a key of its own", foreign_target, is_gentle=True),
    Attack("host-edits-hello", "Host changes the peer's hello", edit_hello, is_gentle=True),
    Attack("host-replays-hello", "Host gives an old hello of the peer", replay_hello, is_gentle=True),
    Attack("host-reflects-hello", "Host gives a helper its own hello", reflect_hello, is_gentle=True),
    Attack("host-mixes-schemes", "Host pairs helpers whose addresses differ in meaning", mix_schemes, is_gentle=True),
    Attack(
        "host-downgrades-peer",
        "Host pairs a source with a target whose guest is less protected",
        downgrade,
        starts=(Start.ES, Start.SNP),
    ),
    Attack("tenant-joins-host", "Other guest with the same key: its helper takes the pages", tenant, is_gentle=True),
    Attack(
        "tenant-uses-key",
        "Other guest with the same key: its kernel takes the pages",
        tenant_kernel,
        _ONE_KEY,
        is_gentle=True,
    ),
)
