"""SEND and RECEIVE: packets recomputed from their format, between platforms and back to the same one."""

from __future__ import annotations

import hmac
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from emulator_tests.psp.rig import (
    ASID,
    BASE,
    DATA,
    ES_ASID,
    OTHER_ASID,
    PAGE,
    TEK,
    TIK,
    G,
    Rig,
    S,
    ctr,
    packet,
    point,
    receiver,
    status,
    wrapping_keys,
)
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.session import Channel, Session
from mh_emulator.psp.status import CommandError, Status


def moved(source: Rig, target: Rig, handle: int, policy: int, asid: int, shared: int = 0) -> int:
    """SEND_START and RECEIVE_START; return the new handle."""
    departure = source.fw.send_start(handle, receiver(target.fw))
    assert departure.policy == policy
    arrival = Session(source.fw.pdh_cert_export().pdh, departure.session)
    new = target.fw.receive_start(departure.policy, arrival, shared)
    target.fw.activate(new, asid)
    return new


@pytest.mark.parametrize(("part", "target"), [("milan", "genoa"), ("rome", "rome")])
def test_a_guest_moves_to_another_platform(part: str, target: str) -> None:
    here, there = Rig(part), Rig(target, seed=4)
    handle = here.guest(G.RUNNING, Policy.NODBG)
    here.dram.write_private(ASID, BASE, DATA)
    new = moved(here, there, handle, Policy.NODBG, OTHER_ASID)
    sent = here.fw.send_update_data(handle, BASE, PAGE)
    there.fw.receive_update_data(new, sent, BASE + 5 * PAGE, PAGE)
    here.fw.send_finish(handle)
    assert not there.fw.is_runnable(OTHER_ASID)
    there.fw.receive_finish(new)
    assert there.fw.is_runnable(OTHER_ASID)
    assert there.dram.read_private(OTHER_ASID, BASE + 5 * PAGE, PAGE) == DATA
    assert here.fw.guest_status(handle).state is G.SENT
    assert there.fw.guest_status(new) == (Policy.NODBG, OTHER_ASID, G.RUNNING)


def test_what_send_makes_opens_by_hand_with_the_receivers_private_key() -> None:
    """The library alone, as a receiver whose key we know."""
    rig = Rig()
    handle = rig.guest(G.RUNNING, 5 << 24)
    rig.dram.write_private(ASID, BASE, DATA)
    private = ec.generate_private_key(ec.SECP384R1())
    shown = receiver(rig.fw)
    numbers = private.public_key().public_numbers()
    own = bytearray(shown.platform.pdh)
    own[20:92], own[92:164] = numbers.x.to_bytes(72, "little"), numbers.y.to_bytes(72, "little")
    departure = rig.fw.send_start(handle, shown._replace(platform=shown.platform._replace(pdh=bytes(own))))
    sent = rig.fw.send_update_data(handle, BASE + 0x10, 0x40)

    blob = departure.session
    z = private.exchange(ec.ECDH(), point(rig.fw.pdh_cert_export().pdh))[::-1]
    kek, kik = wrapping_keys(z, blob[:16])
    assert blob[64:96] == hmac.digest(kik, blob[16:48], "sha256")
    keys = ctr(kek, blob[48:64], blob[16:48])
    tek, tik = keys[:16], keys[16:]
    assert blob[96:] == hmac.digest(tik, struct.pack("<I", 5 << 24), "sha256")
    flags, iv = sent.header[:4], sent.header[4:20]
    covered = b"\x02" + flags + iv + struct.pack("<II", 0x40, 0x40) + sent.data
    assert (flags, sent.header[20:]) == (bytes(4), hmac.digest(tik, covered, "sha256"))
    assert ctr(tek, iv, sent.data) == DATA[0x10:0x50]


def test_anybody_can_play_the_sender() -> None:
    rig = Rig()
    handle = rig.guest(G.RUPDATE)
    rig.fw.receive_update_data(handle, packet(2, DATA), BASE, PAGE)
    assert rig.dram.read_private(ASID, BASE, PAGE) == DATA


def test_packets_are_bound_to_no_place_and_no_order() -> None:
    rig = Rig()
    handle = rig.guest(G.RUPDATE)
    first, second = packet(2, DATA), packet(2, DATA[::-1])
    for spa in (BASE + 7 * PAGE, BASE, BASE):
        rig.fw.receive_update_data(handle, second, spa, PAGE)
        rig.fw.receive_update_data(handle, first, spa, PAGE)
        assert rig.dram.read_private(ASID, spa, PAGE) == DATA


def test_every_packet_has_an_iv_of_its_own() -> None:
    rig = Rig()
    handle = rig.guest(G.SUPDATE)
    sent = [rig.fw.send_update_data(handle, BASE, PAGE) for _ in range(2)]
    assert sent[0].header[4:20] != sent[1].header[4:20]
    assert sent[0].data != sent[1].data


@pytest.mark.parametrize("offset", [0, 4, 20, 51])
def test_a_packet_changed_anywhere_is_refused_and_nothing_is_written(offset: int) -> None:
    rig = Rig()
    handle = rig.guest(G.RUPDATE)
    rig.dram.write_raw(BASE, DATA)
    good = packet(2, DATA)
    header = bytearray(good.header)
    header[offset] ^= 2
    changed = (
        Packet(bytes(header), good.data),
        Packet(good.header, good.data[:-1] + b"X"),
        packet(2, DATA, tik=b"x" * 16),
        packet(1, DATA),
    )
    for bad in changed:
        assert status(lambda: rig.fw.receive_update_data(handle, bad, BASE, PAGE)) is S.BAD_MEASUREMENT  # noqa: B023
    assert rig.dram.read_raw(BASE, PAGE) == DATA


def test_flags_are_looked_at_before_memory_and_mac() -> None:
    rig = Rig()
    handle = rig.guest(G.RUPDATE)
    compressed = packet(2, DATA, flags=1, tik=b"x" * 16)
    for spa in (BASE, 0):
        assert status(lambda: rig.fw.receive_update_data(handle, compressed, spa, PAGE)) is S.UNSUPPORTED  # noqa: B023


def test_cancel_leaves_a_guest_that_can_be_sent_again_under_other_keys() -> None:
    rig = Rig()
    handle = rig.guest(G.SUPDATE)
    old = rig.fw.send_update_data(handle, BASE, PAGE)
    rig.fw.send_cancel(handle)
    assert status(lambda: rig.fw.send_update_data(handle, BASE, PAGE)) is S.INVALID_GUEST_STATE
    assert rig.fw.is_runnable(ASID)
    new = moved(rig, rig, handle, 0, OTHER_ASID)
    assert status(lambda: rig.fw.receive_update_data(new, old, BASE, PAGE)) is S.BAD_MEASUREMENT


def test_loopback_with_a_shared_key() -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING, Policy.NODBG)
    rig.dram.write_private(ASID, BASE, DATA)
    new = moved(rig, rig, handle, Policy.NODBG, OTHER_ASID, handle)
    rig.fw.receive_update_data(new, rig.fw.send_update_data(handle, BASE, PAGE), BASE + PAGE, PAGE)
    assert rig.dram.read_private(OTHER_ASID, BASE + PAGE, PAGE) == DATA
    assert rig.dram.read_private(ASID, BASE + PAGE, PAGE) == DATA
    assert rig.dram.read_private(OTHER_ASID, BASE, PAGE) == DATA


@pytest.mark.parametrize(("part", "context"), [("rome", 3), ("milan", 2), ("genoa", 2)])
def test_vmsa_moves_with_the_context_of_the_build(part: str, context: int) -> None:
    rig = Rig(part)
    handle = rig.guest(policy=Policy.ES, asid=ES_ASID)
    rig.dram.write_raw(BASE, DATA)
    rig.fw.launch_update_vmsa(handle, BASE)
    rig.fw.launch_measure(handle)
    rig.fw.launch_finish(handle)
    new = moved(rig, rig, handle, Policy.ES, ES_ASID + 1)
    sent = rig.fw.send_update_vmsa(handle, BASE)
    rig.fw.receive_update_vmsa(new, sent, BASE + PAGE)
    stored = rig.dram.read_private(ES_ASID + 1, BASE + PAGE, PAGE)
    assert stored[:0x388] + stored[0x390:] == DATA[:0x388] + DATA[0x390:]
    assert rig.fw.region is not None
    rig.fw.region.validate(stored)
    forged = rig.guest(G.RUPDATE, Policy.ES, ES_ASID + 2)
    for used in (2, 3):
        expected = S.SUCCESS if used == context else S.BAD_MEASUREMENT
        call = status(lambda: rig.fw.receive_update_vmsa(forged, packet(used, DATA), BASE + 2 * PAGE))  # noqa: B023
        assert call is expected


def test_a_vmsa_that_is_none_is_not_sent() -> None:
    rig = Rig()
    handle = rig.guest(policy=Policy.ES, asid=ES_ASID)
    other = rig.guest(policy=Policy.ES, asid=ES_ASID + 1)
    rig.fw.launch_update_vmsa(handle, BASE)
    rig.fw.launch_update_vmsa(other, BASE + PAGE)
    foreign = rig.dram.read_private(ES_ASID + 1, BASE + PAGE, PAGE)
    own = rig.dram.read_private(ES_ASID, BASE, PAGE)
    rig.fw.launch_measure(handle)
    rig.fw.launch_finish(handle)
    rig.fw.send_start(handle, receiver(rig.fw))
    for data, expected in (
        (own, S.SUCCESS),
        (own[:8] + b"X" + own[9:], S.INVALID_PARAM),
        (DATA, S.INVALID_PARAM),
        (foreign, S.INVALID_PARAM),
    ):
        rig.dram.write_private(ES_ASID, BASE, data)
        assert status(lambda: rig.fw.send_update_vmsa(handle, BASE)) is expected
    assert status(lambda: rig.fw.send_update_vmsa(handle, BASE, 64)) is S.INVALID_PARAM


@pytest.mark.parametrize(("size", "expected"), [
    (0, S.INVALID_LENGTH), (16, S.INVALID_LENGTH), (32, S.INVALID_LENGTH), (48, S.SUCCESS), (50, S.INVALID_LENGTH),
    (0x5000, S.SUCCESS), (0x5010, S.INVALID_LENGTH),
])  # fmt: skip
def test_lengths(size: int, expected: Status) -> None:
    rig = Rig()
    here, there = rig.guest(G.SUPDATE), rig.guest(G.RUPDATE, asid=OTHER_ASID)
    assert status(lambda: rig.fw.send_update_data(here, BASE, size)) is expected
    assert status(lambda: rig.fw.receive_update_data(there, packet(2, bytes(size)), BASE, size)) is expected


def test_older_builds_take_small_packets_and_no_large_ones() -> None:
    rig = Rig("rome")
    handle = rig.guest(G.SUPDATE)
    assert status(lambda: rig.fw.send_update_data(handle, BASE, 16)) is S.SUCCESS
    assert status(lambda: rig.fw.send_update_data(handle, BASE, 0x4010)) is S.INVALID_LENGTH


def test_small_buffers_are_told_what_is_needed() -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING)
    with pytest.raises(CommandError) as caught:
        rig.fw.send_start(handle, receiver(rig.fw), 0)
    assert (caught.value.status, caught.value.length) == (S.INVALID_LENGTH, 128)
    rig.fw.send_start(handle, receiver(rig.fw))
    with pytest.raises(CommandError) as caught:
        rig.fw.send_update_data(handle, BASE, PAGE, header_bytes=51)
    assert (caught.value.status, caught.value.length) == (S.INVALID_LENGTH, 52)
    assert status(lambda: rig.fw.send_update_data(handle, BASE, PAGE, room=PAGE - 1)) is S.INVALID_LENGTH
    assert status(lambda: rig.fw.send_update_data(handle, BASE, PAGE, room=2 * PAGE)) is S.SUCCESS


def test_packet_and_memory_must_have_the_same_length() -> None:
    rig = Rig()
    handle = rig.guest(G.RUPDATE)
    good = packet(2, DATA)
    assert status(lambda: rig.fw.receive_update_data(handle, good, BASE, PAGE - 16)) is S.INVALID_LENGTH
    assert status(lambda: rig.fw.receive_update_data(handle, Packet(good.header[:-1], DATA), BASE, PAGE)) is (
        S.INVALID_LENGTH
    )
    longer = Packet(good.header + b"more", good.data)
    assert status(lambda: rig.fw.receive_update_data(handle, longer, BASE, PAGE)) is S.SUCCESS


@pytest.mark.parametrize("end", ["send_finish", "send_cancel", "receive_finish", "launch_finish"])
def test_transport_keys_are_wiped_at_the_end(end: str) -> None:
    rig = Rig()
    state = {"receive_finish": G.RUPDATE, "launch_finish": G.LSECRET}.get(end, G.SUPDATE)
    handle = rig.guest(state)
    getattr(rig.fw, end)(handle)
    assert rig.fw._sp.guests.get(handle).channel == Channel()


def test_keys_of_the_test_are_those_of_its_sessions() -> None:
    rig = Rig()
    opened = rig.fw._sp.guests.get(rig.guest(G.RUPDATE)).channel
    assert (opened.tek, opened.tik) == (TEK, TIK)
