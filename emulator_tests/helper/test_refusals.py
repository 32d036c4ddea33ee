"""Packets, keys and rings, forged as the host would forge them: each refusal its own status, and RAM as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emulator_tests.helper.conftest import SECRET, Pair, Status, facing, is_over, lonely
from mh_abi import abi
from mh_builder.image.model import Image
from mh_emulator.host.ring import HelperRefused, HelperStopped, Request, Sealed
from mh_emulator.host.session import begin, greet
from mh_emulator.host.side import Side
from mh_emulator.peer import Peer, StreamKeys

Op = abi.mh_op
Role = abi.mh_role
PAGE = abi.MH_PAGE_BYTES


# ---- packets ----


def refused(pair: Pair, sealed: Sealed, address: int | None = None) -> abi.mh_status:
    """Import something forged; RAM must stay as it was. After a bad tag the session must be over, else the right
    packet must still be welcome."""
    page = pair.pages[0]
    before = pair.target_page(page)
    status = pair.target.put(page if address is None else address, sealed)
    assert pair.target_page(page) == before
    assert is_over(pair.target) == (status == Status.MH_BAD_TAG)
    return status


FIELD_STATUS = {
    "magic": Status.MH_BAD_PACKET,
    "version": Status.MH_BAD_PACKET,
    "kind": Status.MH_BAD_PACKET,
    "length": Status.MH_BAD_PACKET,
    "stream": Status.MH_WRONG_STREAM,
    "sequence": Status.MH_OUT_OF_ORDER,
    "address": Status.MH_WRONG_ADDRESS,
    "epoch": Status.MH_WRONG_EPOCH,
    "reserved": Status.MH_BAD_PACKET,
    "session": Status.MH_WRONG_SESSION,
    "urgent": Status.MH_BAD_PACKET,
    "tag": Status.MH_BAD_TAG,
}


def test_any_flipped_byte_is_refused(pair: Pair) -> None:
    """Each byte of the packet's header, in its field's own status; then the true one is taken."""
    sealed = pair.source.export(pair.pages[0])
    for name, field in list(abi.mh_packet.fields.items())[:-1]:
        for position in range(field.offset, field.offset + len(field.type)):
            packet = flipped(sealed.packet, position)
            assert refused(pair, Sealed(packet, sealed.data)) == FIELD_STATUS[name], (name, position)
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_DONE
    assert pair.target_page(pair.pages[0]) == pair.contents[:PAGE]


def flipped(data: bytes, position: int) -> bytes:
    """With one bit of that byte changed."""
    changed = bytearray(data)
    changed[position] ^= 1 << position % 8
    return bytes(changed)


@pytest.mark.parametrize("part", ["tag", "data"])
def test_any_flipped_byte_under_the_tag_ends_the_session(pair: Pair, part: str) -> None:
    """Each byte of the tag, each 61st of the data; the true packet is refused then, and a new session takes it."""
    page = pair.contents[:PAGE]
    for position in range(abi.MH_TAG_BYTES) if part == "tag" else [*range(0, PAGE, 61), PAGE - 1]:
        keys = new_session(pair.target)
        packet, data = keys.seal(page)
        forged = (
            Sealed(flipped(packet, abi.MH_PACKET_AAD_BYTES + position), data)
            if part == "tag"
            else Sealed(packet, flipped(data, position))
        )
        assert refused(pair, forged) == Status.MH_BAD_TAG, position
        assert pair.target.put(0, Sealed(packet, data)) == Status.MH_WRONG_STATE, position
    assert pair.target.put(0, Sealed(*new_session(pair.target).seal(page))) == Status.MH_DONE
    assert pair.target_page(0) == page


def new_session(target: Side) -> StreamKeys:
    """Of a target, with a source that is played here; the session before it may be over or not."""
    assert target.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    return facing(target, Role.MH_ROLE_TARGET).stream(0)


def test_replay(pair: Pair) -> None:
    sealed, other = pair.source.export(pair.pages[0]), pair.source.export(pair.pages[1])
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_DONE
    assert refused(pair, sealed) == Status.MH_REPEATED
    # Under an address that was not imported yet, the packet's own age shows.
    fields = abi.mh_packet(sealed.packet)
    fields.address = pair.pages[1]
    assert refused(pair, Sealed(fields.dumps(), sealed.data), pair.pages[1]) == Status.MH_REPLAYED
    assert pair.target.put(pair.pages[1], other) == Status.MH_DONE


def test_reorder_and_drop(pair: Pair) -> None:
    first, second = (pair.source.export(address) for address in pair.pages[:2])
    assert refused(pair, second, pair.pages[1]) == Status.MH_OUT_OF_ORDER
    assert pair.target.put(pair.pages[0], first) == Status.MH_DONE
    assert pair.target.put(pair.pages[1], second) == Status.MH_DONE


def test_relocation(pair: Pair) -> None:
    sealed = pair.source.export(pair.pages[1])
    assert refused(pair, sealed) == Status.MH_WRONG_ADDRESS
    fields = abi.mh_packet(sealed.packet)
    fields.address = pair.pages[0]
    assert refused(pair, Sealed(fields.dumps(), sealed.data)) == Status.MH_BAD_TAG


def test_sequence_relabelled(pair: Pair) -> None:
    pair.source.export(pair.pages[1])
    fields = abi.mh_packet((second := pair.source.export(pair.pages[0])).packet)
    fields.sequence = 0
    assert refused(pair, Sealed(fields.dumps(), second.data)) == Status.MH_BAD_TAG


def test_data_of_another_packet(pair: Pair) -> None:
    first, second = (pair.source.export(address) for address in pair.pages[:2])
    assert refused(pair, Sealed(first.packet, second.data)) == Status.MH_BAD_TAG


def test_end_packet_is_no_page(pair: Pair) -> None:
    end = pair.source.totals(Op.MH_OP_FINISH)
    assert refused(pair, end, pair.pages[0]) == Status.MH_BAD_PACKET


def test_page_is_no_end_packet(pair: Pair) -> None:
    sealed = pair.source.export(pair.pages[0])
    assert pair.target.ask(Op.MH_OP_FINISH, sealed=sealed) == Status.MH_BAD_PACKET


def test_dropped_page_is_noticed_at_the_end(pair: Pair) -> None:
    pair.source.export(pair.pages[0])
    end = pair.source.totals(Op.MH_OP_FINISH)
    assert pair.target.ask(Op.MH_OP_FINISH, sealed=end) == Status.MH_OUT_OF_ORDER


def test_end_packet_with_another_total(pair: Pair) -> None:
    packet, data = pair.keys.seal(b"", kind=abi.mh_kind.MH_KIND_END.value, address=1, sequence=0)
    assert pair.target.ask(Op.MH_OP_FINISH, sealed=Sealed(packet, data)) == Status.MH_BAD_TOTALS
    assert pair.target.ask(Op.MH_OP_IMPORT, pair.pages[0]) == Status.MH_WRONG_STATE


def test_own_export_is_not_imported_back(images: dict[str, Image]) -> None:
    """The page key has a direction: hellos enter it in the order source, target."""
    side, other = lonely(images), lonely(images)
    peer = Peer(SECRET)
    hello, other_hello = greet(side.ring), greet(other.ring)
    begin(side.ring, Role.MH_ROLE_SOURCE, other_hello)
    sealed = side.export(0)
    begin(other.ring, Role.MH_ROLE_TARGET, hello)
    assert peer.keys(Role.MH_ROLE_SOURCE, hello) != peer.keys(Role.MH_ROLE_TARGET, hello)
    assert side.ask(Op.MH_OP_IMPORT, 0, sealed) == Status.MH_WRONG_STATE
    assert other.put(0, sealed) == Status.MH_DONE


# ---- keys ----


def test_another_transport_key_at_the_target(images: dict[str, Image]) -> None:
    """The hello of another transport key is refused on either side, so there is no session."""
    source, target = lonely(images), lonely(images, secret=replace(SECRET, key=bytes(32)))
    hellos = greet(source.ring), greet(target.ring)
    for side, role, peer in (
        (source, Role.MH_ROLE_SOURCE, hellos[1]),
        (target, Role.MH_ROLE_TARGET, hellos[0]),
    ):
        with pytest.raises(HelperRefused, match="^helper refuses start: MH_BAD_HELLO$"):
            begin(side.ring, role, peer)
        op = Op.MH_OP_EXPORT if role == Role.MH_ROLE_SOURCE else Op.MH_OP_IMPORT
        assert side.ask(op) == Status.MH_WRONG_STATE


def test_packet_of_another_session_with_this_ones_identity(pair: Pair) -> None:
    """The identity is public; a host that puts the expected one there gets no further."""
    other = Peer(SECRET)
    packet, data = other.keys(Role.MH_ROLE_SOURCE, Peer(SECRET).hello).stream(0).seal(pair.contents[:PAGE])
    assert refused(pair, Sealed(packet, data)) == Status.MH_WRONG_SESSION
    fields = abi.mh_packet(packet)
    fields.session = list(pair.keys.session)
    assert refused(pair, Sealed(fields.dumps(), data)) == Status.MH_BAD_TAG


@pytest.mark.parametrize("case", ["zeros", "noise", "table-ends-early", "entry-of-another-guid", "entry-too-long"])
def test_launch_secret_without_a_key(images: dict[str, Image], case: str) -> None:
    """Neither a hello comes of it, nor a start after the hello of a record that was there."""
    side = lonely(images)
    good = side.machine.read_helper(side.machine.helper.descriptor.secret_offset, PAGE)
    bad = bad_secret(side, case)
    put_secret(side, bad)
    with pytest.raises(HelperRefused, match="^helper refuses hello: MH_NO_KEY$"):
        greet(side.ring)
    assert is_over(side)
    put_secret(side, good)
    greet(side.ring)
    put_secret(side, bad)
    with pytest.raises(HelperRefused, match="^helper refuses start: MH_NO_KEY$"):
        begin(side.ring, Role.MH_ROLE_SOURCE, Peer(SECRET).hello)


def bad_secret(side: Side, case: str) -> bytes:
    """The secret page with one thing wrong."""
    machine = side.machine
    good = bytearray(machine.read_helper(machine.helper.descriptor.secret_offset, PAGE))
    entry = abi.MH_SECRET_ENTRY_BYTES
    match case:
        case "zeros":
            good[:] = bytes(PAGE)
        case "noise":
            good[:] = (bytes(range(1, 255)) * 17)[:PAGE]
        case "table-ends-early":
            good[16:20] = (entry * 2 + len(abi.mh_secret) - 1).to_bytes(4, "little")
        case "entry-of-another-guid":
            good[entry] ^= 1
        case "entry-too-long":
            good[entry + 16 : entry + 20] = (entry + len(abi.mh_secret) + 1).to_bytes(4, "little")
    return bytes(good)


def put_secret(side: Side, secret: bytes) -> None:
    """Replace the secret page, as only the guest's key can."""
    machine = side.machine
    machine.write_helper(machine.helper.descriptor.secret_offset, secret)


def test_secret_table_with_another_entry_first(images: dict[str, Image]) -> None:
    side = lonely(images)
    machine, offset = side.machine, side.machine.helper.descriptor.secret_offset
    table = machine.read_helper(offset, PAGE)
    entry = abi.MH_SECRET_ENTRY_BYTES
    other = bytes(range(16)) + (entry + 8).to_bytes(4, "little") + b"whatever"
    length = int.from_bytes(table[16:20], "little") + len(other)
    put_secret(side, (table[:16] + length.to_bytes(4, "little") + other + table[entry:])[:PAGE])
    facing(side, Role.MH_ROLE_SOURCE)


# ---- the ring ----


@pytest.mark.parametrize("ahead", [abi.MH_RING_ENTRIES + 1, 1 << 31, (1 << 32) - 1], ids=hex)
def test_impossible_tail_breaks_the_ring(pair: Pair, ahead: int) -> None:
    side = pair.source
    tail = (side.ring.header().head + ahead) % (1 << 32)
    offset = side.machine.helper_offset + side.machine.helper.ring_offset
    place = offset + abi.mh_ring.fields["tail"].offset
    side.machine.helper_memory.write_raw(place, tail.to_bytes(4, "little"))
    side.machine.mirror.run()
    assert side.ring.header().state == abi.mh_ring_state.MH_RING_BROKEN
    with pytest.raises(HelperStopped, match="MH_RING_BROKEN"):
        side.ask(Op.MH_OP_HELLO)


def test_full_ring_is_served_at_once(pair: Pair) -> None:
    before = pair.source.machine.mirror.exits
    requests = [Request(Op.MH_OP_EPOCH, slot=number) for number in range(abi.MH_RING_ENTRIES)]
    assert {completion.status for completion in pair.source.ring.serve(requests)} == {Status.MH_DONE}
    assert pair.source.machine.mirror.exits - before == 1


def test_statuses_are_distinct() -> None:
    assert len({status.value for status in Status}) == len(list(Status))
