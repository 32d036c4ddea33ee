"""Hellos: what a helper says of itself, and what it makes of a peer's, be it forged, foreign or another's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from emulator_tests.helper.conftest import PAGES, SECRET, Op, Status, contents_of, is_over, launched
from emulator_tests.helper.memory import found
from emulator_tests.helper.oracle import scalar_of
from emulator_tests.helper.rings import image_of
from emulator_tests.helper.test_handover import started
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_builder.schemes.space import MIRROR_STARTS, Start
from mh_emulator.host.ring import HelperRefused, Request
from mh_emulator.host.session import greet
from mh_emulator.host.side import Side
from mh_emulator.peer import Peer, hello_tag
from mh_emulator.secret import Secret

MAC_BYTES = abi.MH_HELLO_MAC_BYTES
Role = abi.mh_role
ROLES = [Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET]
SEV, SEV_ES, SEV_SNP = (protection.value for protection in abi.mh_protection)


def helper_with(secret: Secret = SECRET) -> Side:
    machine = launched(parse_image(image_of(1).data), PARTS["milan"], 1, contents_of(PAGES), secret)
    return Side(machine, machine.start_helper())


def answer(side: Side, role: int, hello: bytes, slot: int = 0) -> abi.mh_status:
    """What START says to a peer's hello."""
    side.ring.put_packet(slot, hello)
    return side.ring.serve([Request(Op.MH_OP_START, role=role, count=1, slot=slot)])[0].status


def expected(secret: Secret, ours: bytes, theirs: bytes, role: int) -> abi.mh_status:
    """The first check that fails, in the order of `mh_status`; what other versions may say otherwise comes later."""
    own, peer = abi.mh_hello(ours), abi.mh_hello(theirs)
    source, target = (own, peer) if role == Role.MH_ROLE_SOURCE else (peer, own)
    checks = {
        Status.MH_NOT_HELLO: peer.magic == abi.MH_HELLO_MAGIC,
        Status.MH_NO_PROTOCOL: max(own.low, peer.low) <= min(own.high, peer.high),
        None: not any(peer.reserved),
        Status.MH_OTHER_ADDRESSES: peer.addresses == own.addresses,
        Status.MH_OTHER_GUEST: bytes(peer.guest) == secret.guest,
        Status.MH_OTHER_TERMS: peer.flags == secret.flags,
        Status.MH_WEAKER_PEER: peer.protection >= secret.protection and target.protection >= source.protection,
        Status.MH_BAD_HELLO: theirs[MAC_BYTES:] == hello_tag(secret, theirs[:MAC_BYTES]),
        Status.MH_BAD_NONCE: bytes(peer.nonce) != bytes(own.nonce),
    }
    first = next((status for status, holds in checks.items() if not holds), Status.MH_DONE)
    return Status.MH_NOT_HELLO if first is None else first


# ---- what it says ----


@pytest.mark.parametrize("start", MIRROR_STARTS)
def test_fields(images: dict[str, Image], es_images: dict[str, Image], scheme: str, start: Start) -> None:
    machine = started((es_images if start is Start.ES else images)[scheme])
    hello = greet(machine.start_helper())
    fields = abi.mh_hello(hello)
    kind = abi.mh_address_kind.MH_ADDRESS_GPA if scheme == "alias-gpa" else abi.mh_address_kind.MH_ADDRESS_RAM
    assert (fields.magic, fields.low, fields.high) == (
        abi.MH_HELLO_MAGIC,
        abi.MH_PROTOCOL_LOW,
        abi.MH_PROTOCOL_HIGH,
    )
    assert (fields.addresses, fields.protection) == (kind, SEV_ES if start is Start.ES else SEV)
    assert (fields.flags, bytes(fields.guest), list(fields.reserved)) == (SECRET.flags, SECRET.guest, [0, 0])
    assert hello[MAC_BYTES:] == hello_tag(SECRET, hello[:MAC_BYTES])
    assert len({*fields.nonce}) > 8


def test_flags_are_the_owners() -> None:
    side = helper_with(replace(SECRET, flags=abi.MH_OWNER_STRICT, protection=SEV_SNP))
    fields = abi.mh_hello(greet(side.ring))
    assert (fields.flags, fields.protection) == (abi.MH_OWNER_STRICT, SEV)


def test_share_is_that_of_the_scalar() -> None:
    """RFC 7748, section 6.1; what the helper computed, `cryptography` computes."""
    side = helper_with()
    hello = greet(side.ring)
    scalar = X25519PrivateKey.from_private_bytes(scalar_of(image_of(1), side.machine))
    assert scalar.public_key().public_bytes_raw() == bytes(abi.mh_hello(hello).share)


@pytest.mark.parametrize("slot", [0, 1, abi.MH_RING_SLOTS - 1])
def test_slots_are_the_hosts_choice(slot: int) -> None:
    """A hello takes its bytes of one packet's place, and touches nothing beside them."""
    side = helper_with()
    places = abi.MH_RING_SLOTS * abi.MH_PACKET_SLOT_BYTES
    side.ring.write(abi.MH_RING_PACKETS, b"\xa5" * places)
    side.ring.ask("hello", Request(Op.MH_OP_HELLO, slot=slot))
    hello = side.ring.take_hello(slot)
    seen = side.ring.read(abi.MH_RING_PACKETS, places)
    at = slot * abi.MH_PACKET_SLOT_BYTES
    assert seen == b"\xa5" * at + hello + b"\xa5" * (places - at - len(hello))
    peer = Peer(SECRET)
    assert answer(side, Role.MH_ROLE_SOURCE, peer.hello, slot=abi.MH_RING_SLOTS - 1 - slot) == Status.MH_DONE
    sealed = side.export(0)
    keys = peer.keys(Role.MH_ROLE_TARGET, hello).stream(0)
    assert keys.open(sealed.packet, sealed.data) == contents_of(PAGES)[: abi.MH_PAGE_BYTES]


# ---- what it makes of another's ----


@pytest.mark.parametrize("role", ROLES)
def test_any_flipped_bit(role: int) -> None:
    """Each has its own status, and the hello that was not changed is welcome afterwards."""
    side = helper_with()
    ours, theirs = greet(side.ring), Peer(SECRET).hello
    told = set()
    for position in range(8 * len(theirs)):
        changed = bytearray(theirs)
        changed[position // 8] ^= 1 << position % 8
        status = answer(side, role, bytes(changed))
        assert status == expected(SECRET, ours, bytes(changed), role) != Status.MH_DONE, position
        told.add(status)
    assert told == {
        Status.MH_WEAKER_PEER,
        Status.MH_NOT_HELLO,
        Status.MH_NO_PROTOCOL,
        Status.MH_OTHER_ADDRESSES,
        Status.MH_OTHER_GUEST,
        Status.MH_OTHER_TERMS,
        Status.MH_BAD_HELLO,
    }
    assert answer(side, role, theirs) == Status.MH_DONE


@pytest.mark.parametrize("position", [0, 4, 8, 10, 12, 16, 40, 70, 100, 112, 127])
def test_nothing_of_a_refused_hello_stays(position: int) -> None:
    """One of every field; nonce, share and tag are the host's choice, and are in no memory and in no register."""
    side = helper_with()
    greet(side.ring)
    changed = bytearray(Peer(SECRET).hello)
    changed[position] ^= 0x80
    assert answer(side, Role.MH_ROLE_SOURCE, bytes(changed)) != Status.MH_DONE
    chosen = bytes(changed[abi.mh_hello.fields["nonce"].offset : abi.mh_hello.fields["reserved"].offset])
    assert found(image_of(1), side.machine, chosen, bytes(changed[MAC_BYTES:])) == set()


def test_the_search_finds_a_hello() -> None:
    """Our own is there until it has served."""
    side = helper_with()
    fields = abi.mh_hello(greet(side.ring))
    assert len(found(image_of(1), side.machine, bytes(fields.nonce), bytes(fields.share))) == 8
    assert answer(side, Role.MH_ROLE_SOURCE, Peer(SECRET).hello) == Status.MH_DONE
    assert found(image_of(1), side.machine, bytes(fields.nonce), bytes(fields.share)) == set()


AUTHENTIC: dict[str, tuple[dict[str, Any], abi.mh_status]] = {
    "magic": ({"magic": 1}, Status.MH_NOT_HELLO),
    "reserved-first": ({"reserved": [1, 0]}, Status.MH_NOT_HELLO),
    "reserved-last": ({"reserved": [0, 1 << 63]}, Status.MH_NOT_HELLO),
    "later-versions": ({"low": abi.MH_PROTOCOL_HIGH + 1, "high": 0xFFFF}, Status.MH_NO_PROTOCOL),
    "earlier-versions": ({"low": 0, "high": abi.MH_PROTOCOL_LOW - 1}, Status.MH_NO_PROTOCOL),
    "no-versions": ({"low": abi.MH_PROTOCOL_HIGH + 1, "high": abi.MH_PROTOCOL_HIGH}, Status.MH_NO_PROTOCOL),
    "gpa": ({"addresses": abi.mh_address_kind.MH_ADDRESS_GPA.value}, Status.MH_OTHER_ADDRESSES),
    "other-guest": ({"guest": [1, *SECRET.guest[1:]]}, Status.MH_OTHER_GUEST),
    "other-guest-at-the-end": ({"guest": [*SECRET.guest[:-1], 0]}, Status.MH_OTHER_GUEST),
    "strict": ({"flags": abi.MH_OWNER_STRICT}, Status.MH_OTHER_TERMS),
    "unknown-flag": ({"flags": 1 << 31}, Status.MH_OTHER_TERMS),
    "no-protection": ({"protection": 0}, Status.MH_WEAKER_PEER),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("case", AUTHENTIC)
def test_an_authentic_hello_that_does_not_fit(case: str, role: int) -> None:
    fields, status = AUTHENTIC[case]
    side = helper_with()
    greet(side.ring)
    peer = Peer(SECRET, **fields)
    assert answer(side, role, peer.hello) == status
    assert answer(side, role, Peer(SECRET).hello) == Status.MH_DONE


WEAKER = [
    # The least of the owner, our role, the peer's protection.
    (SEV, Role.MH_ROLE_TARGET, SEV_ES, Status.MH_WEAKER_PEER),
    (SEV, Role.MH_ROLE_TARGET, SEV_SNP, Status.MH_WEAKER_PEER),
    (SEV, Role.MH_ROLE_TARGET, SEV, Status.MH_DONE),
    (SEV, Role.MH_ROLE_SOURCE, SEV_ES, Status.MH_DONE),
    (SEV, Role.MH_ROLE_SOURCE, SEV, Status.MH_DONE),
    (SEV_ES, Role.MH_ROLE_SOURCE, SEV, Status.MH_WEAKER_PEER),
    (SEV_ES, Role.MH_ROLE_TARGET, SEV, Status.MH_WEAKER_PEER),
    (SEV_ES, Role.MH_ROLE_SOURCE, SEV_ES, Status.MH_DONE),
    (SEV_SNP, Role.MH_ROLE_SOURCE, SEV_ES, Status.MH_WEAKER_PEER),
    (SEV_SNP, Role.MH_ROLE_SOURCE, SEV_SNP, Status.MH_DONE),
]


@pytest.mark.parametrize(("least", "role", "peers", "status"), WEAKER)
def test_protection(least: int, role: int, peers: int, status: abi.mh_status) -> None:
    """A plain SEV helper: what the owner demands of its peer, and that no target is weaker than its source."""
    secret = replace(SECRET, protection=least)
    side = helper_with(secret)
    greet(side.ring)
    assert answer(side, role, Peer(secret, protection=peers).hello) == status


@pytest.mark.parametrize("role", ROLES)
def test_an_es_helper_gives_no_plain_target_anything(es_images: dict[str, Image], role: int) -> None:
    machine = started(es_images["regions"])
    side = Side(machine, machine.start_helper())
    greet(side.ring)
    plain = Peer(SECRET, protection=SEV).hello
    assert answer(side, role, plain) == (Status.MH_WEAKER_PEER if role == Role.MH_ROLE_SOURCE else Status.MH_DONE)


@pytest.mark.parametrize("role", ROLES)
def test_hello_of_another_transport_key(role: int) -> None:
    side = helper_with()
    greet(side.ring)
    assert answer(side, role, Peer(replace(SECRET, key=bytes(32))).hello) == Status.MH_BAD_HELLO
    assert answer(side, role, Peer(SECRET).hello) == Status.MH_DONE


@pytest.mark.parametrize("role", ROLES)
def test_our_own_nonce(role: int) -> None:
    """Our hello sent back, and an authentic one that has our nonce and another share."""
    side = helper_with()
    hello = greet(side.ring)
    assert answer(side, role, hello) == Status.MH_BAD_NONCE
    assert answer(side, role, Peer(SECRET, nonce=list(abi.mh_hello(hello).nonce)).hello) == Status.MH_BAD_NONCE
    assert answer(side, role, Peer(SECRET).hello) == Status.MH_DONE


P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
    (1 << 255) | 0,
    (1 << 255) | (P - 1),
    (1 << 255) | P,
]
"""Points of an order that divides 8, and their other encodings (RFC 7748, sections 5 and 6.1)."""


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("point", LOW_ORDER, ids=hex)
def test_a_share_without_a_secret(role: int, point: int) -> None:
    """Of a peer that has the transport key. The hello is used up, and nothing is left of either."""
    side = helper_with()
    ours = abi.mh_hello(greet(side.ring))
    scalar = scalar_of(image_of(1), side.machine)
    peer = Peer(SECRET, share=list(point.to_bytes(32, "little")))
    theirs = bytes(abi.mh_hello(peer.hello).nonce)
    assert answer(side, role, peer.hello) == Status.MH_BAD_SHARE
    assert is_over(side)
    assert found(image_of(1), side.machine, scalar, bytes(ours.nonce), bytes(ours.share), theirs) == set()
    assert answer(side, role, Peer(SECRET).hello) == Status.MH_WRONG_STATE
    greet(side.ring)
    assert answer(side, role, Peer(SECRET).hello) == Status.MH_DONE


# ---- the order of the checks ----

DEFECTS: dict[str, dict[str, Any]] = {
    "magic": {"magic": 0},
    "protocol": {"low": 0xFFFF},
    "reserved": {"reserved": [0, 1]},
    "addresses": {"addresses": 9},
    "guest": {"guest": [0] * 16},
    "flags": {"flags": 2},
    "protection": {"protection": 0},
    "nonce": {},
    "tag": {},
}


def with_defects(names: tuple[str, ...], ours: bytes) -> bytes:
    fields = {name: value for defect in names for name, value in DEFECTS[defect].items()}
    if "nonce" in names:
        fields["nonce"] = list(abi.mh_hello(ours).nonce)
    hello = bytearray(Peer(SECRET, **fields).hello)
    if "tag" in names:
        hello[-1] ^= 1
    return bytes(hello)


def every_choice() -> Iterator[tuple[str, ...]]:
    for count in range(1, len(DEFECTS) + 1):
        yield from combinations(DEFECTS, count)


@pytest.mark.parametrize("role", ROLES)
def test_the_first_check_that_fails_is_the_answer(role: int) -> None:
    """Any hello that has several things wrong, all of them."""
    side = helper_with()
    ours = greet(side.ring)
    for names in every_choice():
        hello = with_defects(names, ours)
        assert answer(side, role, hello) == expected(SECRET, ours, hello, role) != Status.MH_DONE, names
    assert answer(side, role, Peer(SECRET).hello) == Status.MH_DONE


def test_state_and_secret_come_before_the_hello() -> None:
    side = helper_with()
    noise = bytes(range(128))
    assert answer(side, Role.MH_ROLE_SOURCE, noise) == Status.MH_WRONG_STATE
    greet(side.ring)
    side.machine.write_helper(side.machine.helper.descriptor.secret_offset, bytes(abi.MH_PAGE_BYTES))
    assert answer(side, Role.MH_ROLE_SOURCE, noise) == Status.MH_NO_KEY


def test_a_refused_start_is_one_line() -> None:
    side = helper_with()
    greet(side.ring)
    side.ring.put_packet(0, Peer(replace(SECRET, guest=bytes(16))).hello)
    with pytest.raises(HelperRefused, match="^helper refuses start: MH_OTHER_GUEST$"):
        side.ring.ask("start", Request(Op.MH_OP_START, role=Role.MH_ROLE_SOURCE, count=1))
