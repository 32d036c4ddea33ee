"""Every refusal, forged as the host would forge it: its own status, and RAM as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emulator_tests.helper.conftest import (
    PAGES,
    TRANSPORT_KEY,
    Pair,
    PairMaker,
    Side,
    Status,
    contents_of,
    launched,
    started,
)
from emulator_tests.helper.oracle import derive, packet_fields
from mh_builder.image.model import Image
from mh_emulator.host.ring import HelperRefused, HelperStopped, Request, Sealed
from mh_emulator.host.session import abort, begin, export_batch, greet, runs
from mh_emulator.loader import parse_image
from mh_emulator.parts import PARTS
from payload import abi

Op = abi.mh_op
Role = abi.mh_role
PAGE = abi.MH_PAGE_BYTES


def lonely(images: dict[str, Image], key: bytes = TRANSPORT_KEY) -> Side:
    """A helper without a session."""
    return started(launched(parse_image(images["regions"].data), PARTS["milan"], 1, contents_of(PAGES), key))


# ---- submissions ----


@pytest.mark.parametrize("op", [0, 8, 0xFF, 0x101, 0xFFFF])
def test_unknown_op(pair: Pair, op: int) -> None:
    assert pair.source.ask(op) == Status.MH_BAD_OP


BATCH: dict[str, Any] = {"count": 1, "chunk": 1}
FULL = abi.MH_RING_SLOTS

UNUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "export-role": (Op.MH_OP_EXPORT, BATCH | {"role": 1}),
    "export-nonce": (Op.MH_OP_EXPORT, BATCH | {"nonce": bytes(31) + b"\1"}),
    "import-nonce": (Op.MH_OP_IMPORT, BATCH | {"nonce": b"\1" + bytes(31)}),
    "hello-address": (Op.MH_OP_HELLO, {"address": 0x1000}),
    "hello-role": (Op.MH_OP_HELLO, {"role": 2}),
    "hello-slot": (Op.MH_OP_HELLO, {"slot": 1}),
    "start-address": (Op.MH_OP_START, {"role": 1, "address": 1 << 63}),
    "start-count": (Op.MH_OP_START, {"role": 1, "count": 1}),
    "start-slot": (Op.MH_OP_START, {"role": 1, "slot": 1}),
    "start-without-role": (Op.MH_OP_START, {"role": 0}),
    "start-third-role": (Op.MH_OP_START, {"role": 3}),
    "finish-address": (Op.MH_OP_FINISH, {"address": 0x1000}),
    "finish-chunk": (Op.MH_OP_FINISH, {"chunk": 1}),
    "finish-slot-beyond": (Op.MH_OP_FINISH, {"slot": FULL}),
    "epoch-flags": (Op.MH_OP_EPOCH, {"flags": 1}),
    "epoch-nonce": (Op.MH_OP_EPOCH, {"nonce": bytes(8) + b"\1" + bytes(23)}),
    "epoch-slot-beyond": (Op.MH_OP_EPOCH, {"slot": 0xFFFF}),
    "abort-nonce": (Op.MH_OP_ABORT, {"nonce": bytes(16) + b"\1" + bytes(15)}),
    "abort-count": (Op.MH_OP_ABORT, {"count": 1}),
    "no-pages": (Op.MH_OP_EXPORT, {}),
    "no-chunk": (Op.MH_OP_EXPORT, {"count": 1}),
    "no-count": (Op.MH_OP_EXPORT, {"chunk": 1}),
    "chunk-above-count": (Op.MH_OP_EXPORT, {"count": 2, "chunk": 3}),
    "more-than-the-ring-holds": (Op.MH_OP_EXPORT, {"count": FULL + 1, "chunk": 1}),
    "beyond-the-last-slot": (Op.MH_OP_EXPORT, {"count": 2, "chunk": 1, "slot": FULL - 1}),
    "slot-and-count-wrap": (Op.MH_OP_IMPORT, {"count": 0xFFFF, "chunk": 1, "slot": 1}),
    "unknown-flag": (Op.MH_OP_EXPORT, BATCH | {"flags": 2}),
    "unknown-flag-beside": (Op.MH_OP_EXPORT, BATCH | {"flags": 3}),
    "list-in-chunks": (Op.MH_OP_EXPORT, {"count": 2, "chunk": 2, "flags": 1}),
    "list-with-address": (Op.MH_OP_EXPORT, BATCH | {"flags": 1, "address": 0x1000}),
}


@pytest.mark.parametrize("case", UNUSED)
def test_unused_fields_must_be_zero(pair: Pair, case: str) -> None:
    op, fields = UNUSED[case]
    assert pair.source.ring.serve([Request(op, **fields)])[0].status == Status.MH_BAD_ENTRY


@pytest.mark.parametrize("op", [op.value for op in Op])
def test_reserved_field_must_be_zero(pair: Pair, op: int) -> None:
    batch = op in (Op.MH_OP_EXPORT, Op.MH_OP_IMPORT)
    entry = abi.mh_submission(op=op, role=1 if op == Op.MH_OP_START else 0, count=batch, chunk=batch, reserved=1 << 31)
    assert raw_submission(pair.source, entry.dumps()) == Status.MH_BAD_ENTRY


def raw_submission(side: Side, entry: bytes) -> abi.mh_status:
    """Submit these 64 bytes; return the status."""
    ring = side.ring
    index = ring.header().head % abi.MH_RING_ENTRIES
    ring.submit(entry)
    ring.run()
    size = len(abi.mh_completion)
    return Status(abi.mh_completion(ring.read(abi.MH_RING_COMPLETIONS + index * size, size)).status)


# ---- states ----


def in_idle(images: dict[str, Image], _make: PairMaker) -> Side:
    return lonely(images)


def in_greeted(images: dict[str, Image], _make: PairMaker) -> Side:
    side = lonely(images)
    greet(side.ring)
    return side


def as_source(_images: dict[str, Image], make: PairMaker) -> Side:
    return make("regions").source


def as_target(_images: dict[str, Image], make: PairMaker) -> Side:
    return make("regions").target


def after_finish(_images: dict[str, Image], make: PairMaker) -> Side:
    side = make("regions").source
    assert side.ask(Op.MH_OP_FINISH) == Status.MH_DONE
    return side


def after_abort(_images: dict[str, Image], make: PairMaker) -> Side:
    side = make("regions").source
    abort(side.ring)
    return side


Stage = Callable[[dict[str, Image], PairMaker], Side]

WRONG_STATES: list[tuple[Stage, list[int]]] = [
    (in_idle, [Op.MH_OP_START, Op.MH_OP_EXPORT, Op.MH_OP_IMPORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH]),
    (in_greeted, [Op.MH_OP_EXPORT, Op.MH_OP_IMPORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH]),
    (as_source, [Op.MH_OP_HELLO, Op.MH_OP_START, Op.MH_OP_IMPORT]),
    (as_target, [Op.MH_OP_HELLO, Op.MH_OP_START, Op.MH_OP_EXPORT]),
    (after_finish, [Op.MH_OP_START, Op.MH_OP_EXPORT, Op.MH_OP_IMPORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH]),
    (after_abort, [Op.MH_OP_START, Op.MH_OP_EXPORT, Op.MH_OP_IMPORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH]),
]


@pytest.mark.parametrize(("stage", "ops"), WRONG_STATES, ids=[stage.__name__ for stage, _ in WRONG_STATES])
def test_wrong_state(stage: Stage, ops: list[int], images: dict[str, Image], make_pair: PairMaker) -> None:
    side = stage(images, make_pair)
    for op in ops:
        fields = BATCH if op in (Op.MH_OP_EXPORT, Op.MH_OP_IMPORT) else {"role": op == Op.MH_OP_START}
        assert side.ring.serve([Request(op, **fields)])[0].status == Status.MH_WRONG_STATE


def test_own_nonce_is_no_peer(images: dict[str, Image]) -> None:
    side = lonely(images)
    nonce = greet(side.ring)
    with pytest.raises(HelperRefused, match="^helper refuses start: MH_BAD_NONCE$"):
        begin(side.ring, Role.MH_ROLE_SOURCE, nonce)


# ---- addresses ----

OUTSIDE = [
    1 << 36,
    (1 << 36) + PAGE,
    1 << 47,
    1 << 51 | 0x1000,
    1 << 42,
    (1 << 64) - PAGE,
    1 << 63,
    0xFFFF_8000_0000_0000,
    0xFFFF_8040_0000_0000,
]


@pytest.mark.parametrize("address", OUTSIDE, ids=hex)
def test_out_of_range(scheme: str, make_pair: PairMaker, address: int) -> None:
    pair = make_pair(scheme)
    assert pair.source.ask(Op.MH_OP_EXPORT, address) == Status.MH_OUT_OF_RANGE
    assert pair.target.ask(Op.MH_OP_IMPORT, address) == Status.MH_OUT_OF_RANGE


@pytest.mark.parametrize("address", [1, 0x800, 0xFFF, 0x4000001, (1 << 64) - 1], ids=hex)
def test_not_aligned(pair: Pair, address: int) -> None:
    assert pair.source.ask(Op.MH_OP_EXPORT, address) == Status.MH_NOT_ALIGNED
    assert pair.target.ask(Op.MH_OP_IMPORT, address) == Status.MH_NOT_ALIGNED


@pytest.mark.parametrize("resident", ["alias-gpa", "alias-window", "alias-window-high", "regions"])
def test_every_page_of_the_helper_is_protected(resident: str, make_pair: PairMaker) -> None:
    pair = make_pair(resident)
    home = pair.source.machine.helper.home
    assert home is not None
    pages = range(home, home + pair.source.machine.helper.memory_bytes, PAGE)
    for batch in runs(pages, chunk=1):
        _, results = export_batch(pair.source.ring, batch)
        assert {result.status for result in results} == {Status.MH_PROTECTED}
    for page in [*pages[::50], pages[-1]]:
        assert pair.target.ask(Op.MH_OP_IMPORT, page) == Status.MH_PROTECTED


def test_pages_beside_the_helper_are_not_protected(pair: Pair) -> None:
    helper = pair.source.machine.helper
    assert helper.home is not None
    assert pair.source.ask(Op.MH_OP_EXPORT, helper.home - PAGE) == Status.MH_DONE
    assert pair.source.ask(Op.MH_OP_EXPORT, helper.home + helper.memory_bytes) == Status.MH_DONE


@pytest.mark.parametrize("number", range(abi.MH_PROTECTED_MAX))
def test_every_protected_range_counts(images: dict[str, Image], number: int) -> None:
    """An image with a range more, as for a launch secret outside of the helper, in each place of the table."""
    data = bytearray(images["isolated"].data)
    start, end = 0x2000, 0x4000
    entry = len(abi.mh_descriptor) + abi.mh_params.fields["protect"].offset + number * len(abi.mh_range)
    data[entry : entry + len(abi.mh_range)] = abi.mh_range(start=start, end=end).dumps()
    side = started(launched(parse_image(bytes(data)), PARTS["milan"], 1, contents_of(PAGES)))
    greet(side.ring)
    begin(side.ring, Role.MH_ROLE_SOURCE, bytes(32))
    statuses = [side.ask(Op.MH_OP_EXPORT, page) for page in range(start - PAGE, end + PAGE, PAGE)]
    assert statuses == [Status.MH_DONE, Status.MH_PROTECTED, Status.MH_PROTECTED, Status.MH_DONE]


# ---- randomness ----

RDRAND_RAX = bytes.fromhex("480fc7f0")


def without_entropy(images: dict[str, Image], replacement: bytes) -> Side:
    """A helper whose RDRAND was replaced by other instructions of four bytes, in the image before its launch."""
    data = images["regions"].data
    assert data.count(RDRAND_RAX) == 1
    helper = parse_image(data.replace(RDRAND_RAX, replacement))
    return started(launched(helper, PARTS["milan"], 1, contents_of(PAGES)))


def test_no_entropy(images: dict[str, Image]) -> None:
    side = without_entropy(images, bytes.fromhex("f8909090"))  # clc
    assert side.ask(Op.MH_OP_HELLO) == Status.MH_NO_ENTROPY
    assert side.ring.serve([Request(Op.MH_OP_START, role=1)])[0].status == Status.MH_WRONG_STATE


@pytest.mark.parametrize(("works_at", "status"), [(2, Status.MH_DONE), (9, Status.MH_DONE)])
def test_entropy_that_comes_late(images: dict[str, Image], works_at: int, status: abi.mh_status) -> None:
    """ECX counts the tries down from ten: carry is set once fewer than `works_at` are left."""
    side = without_entropy(images, bytes.fromhex("83f9") + bytes([works_at]) + b"\x90")  # cmp ecx, works_at
    assert side.ask(Op.MH_OP_HELLO) == status


# ---- packets ----


def refused(pair: Pair, sealed: Sealed, address: int | None = None) -> abi.mh_status:
    """Import something forged; RAM must stay as it was, and the right packet must still be welcome."""
    page = pair.pages[0]
    before = pair.target_page(page)
    status = pair.target.put(page if address is None else address, sealed)
    assert pair.target_page(page) == before
    return status


FIELD_STATUS = {
    "magic": Status.MH_BAD_PACKET,
    "version": Status.MH_BAD_PACKET,
    "kind": Status.MH_BAD_PACKET,
    "length": Status.MH_BAD_PACKET,
    "stream": Status.MH_BAD_PACKET,
    "sequence": Status.MH_OUT_OF_ORDER,
    "address": Status.MH_WRONG_ADDRESS,
    "epoch": Status.MH_WRONG_EPOCH,
    "reserved0": Status.MH_BAD_PACKET,
    "session": Status.MH_WRONG_SESSION,
    "reserved1": Status.MH_BAD_PACKET,
    "tag": Status.MH_BAD_TAG,
}


def test_any_flipped_byte_is_refused(pair: Pair) -> None:
    """Each byte of the packet, in its field's own status; each 61st of the data; then the true one is taken."""
    sealed = pair.source.export(pair.pages[0])
    for name, field in abi.mh_packet.fields.items():
        for position in range(field.offset, field.offset + len(field.type)):
            packet = bytearray(sealed.packet)
            packet[position] ^= 1 << position % 8
            assert refused(pair, Sealed(bytes(packet), sealed.data)) == FIELD_STATUS[name], (name, position)
    for position in [*range(0, PAGE, 61), PAGE - 1]:
        data = bytearray(sealed.data)
        data[position] ^= 0x80
        assert refused(pair, Sealed(sealed.packet, bytes(data))) == Status.MH_BAD_TAG, position
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_DONE
    assert pair.target_page(pair.pages[0]) == pair.contents[:PAGE]


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
    end = pair.source.finish()
    assert refused(pair, end, pair.pages[0]) == Status.MH_BAD_PACKET


def test_page_is_no_end_packet(pair: Pair) -> None:
    sealed = pair.source.export(pair.pages[0])
    assert pair.target.ask(Op.MH_OP_FINISH, sealed=sealed) == Status.MH_BAD_PACKET


def test_dropped_page_is_noticed_at_the_end(pair: Pair) -> None:
    pair.source.export(pair.pages[0])
    end = pair.source.finish()
    assert pair.target.ask(Op.MH_OP_FINISH, sealed=end) == Status.MH_OUT_OF_ORDER


def test_end_packet_with_another_total(pair: Pair) -> None:
    packet, data = pair.keys.seal(b"", kind=abi.mh_kind.MH_KIND_END.value, address=1, sequence=0)
    assert pair.target.ask(Op.MH_OP_FINISH, sealed=Sealed(packet, data)) == Status.MH_BAD_TOTALS
    assert pair.target.ask(Op.MH_OP_IMPORT, pair.pages[0]) == Status.MH_WRONG_STATE


def test_own_export_is_not_imported_back(images: dict[str, Image]) -> None:
    """The page key has a direction: nonces enter it in the order source, target."""
    side, other = lonely(images), lonely(images)
    nonce, peer = greet(side.ring), greet(other.ring)
    begin(side.ring, Role.MH_ROLE_SOURCE, peer)
    sealed = side.export(0)
    begin(other.ring, Role.MH_ROLE_TARGET, nonce)
    assert derive(TRANSPORT_KEY, nonce, peer) != derive(TRANSPORT_KEY, peer, nonce)
    assert other.put(0, sealed) == Status.MH_DONE


# ---- keys ----


def test_another_transport_key_at_the_target(images: dict[str, Image]) -> None:
    source, target = lonely(images), lonely(images, key=bytes(32))
    source_nonce, target_nonce = greet(source.ring), greet(target.ring)
    begin(source.ring, Role.MH_ROLE_SOURCE, target_nonce)
    begin(target.ring, Role.MH_ROLE_TARGET, source_nonce)
    sealed = source.export(0)
    before = target.machine.read_guest(0)
    assert target.put(0, sealed) == Status.MH_WRONG_SESSION
    # The identity is public; a host that puts the expected one there gets no further.
    fields = abi.mh_packet(sealed.packet)
    fields.session = list(derive(bytes(32), source_nonce, target_nonce).session)
    assert target.put(0, Sealed(fields.dumps(), sealed.data)) == Status.MH_BAD_TAG
    assert target.machine.read_guest(0) == before


@pytest.mark.parametrize("case", ["zeros", "noise", "table-ends-early", "entry-of-another-guid", "entry-too-long"])
def test_launch_secret_without_a_key(images: dict[str, Image], case: str) -> None:
    side = lonely(images)
    put_secret(side, bad_secret(side, case))
    greet(side.ring)
    with pytest.raises(HelperRefused, match="^helper refuses start: MH_NO_KEY$"):
        begin(side.ring, Role.MH_ROLE_SOURCE, bytes(32))


def bad_secret(side: Side, case: str) -> bytes:
    """The secret page with one thing wrong."""
    machine = side.machine
    good = bytearray(machine.read_helper(int(machine.helper.descriptor.secret_offset), PAGE))
    entry = abi.MH_SECRET_ENTRY_BYTES
    match case:
        case "zeros":
            good[:] = bytes(PAGE)
        case "noise":
            good[:] = (bytes(range(1, 255)) * 17)[:PAGE]
        case "table-ends-early":
            good[16:20] = (entry * 2 + 31).to_bytes(4, "little")
        case "entry-of-another-guid":
            good[entry] ^= 1
        case "entry-too-long":
            good[entry + 16 : entry + 20] = (entry + 33).to_bytes(4, "little")
    return bytes(good)


def put_secret(side: Side, secret: bytes) -> None:
    """Replace the secret page, as only the guest's key can."""
    machine = side.machine
    machine.write_helper(int(machine.helper.descriptor.secret_offset), secret)


def test_secret_table_with_another_entry_first(images: dict[str, Image]) -> None:
    side = lonely(images)
    machine, offset = side.machine, int(side.machine.helper.descriptor.secret_offset)
    table = machine.read_helper(offset, PAGE)
    entry = abi.MH_SECRET_ENTRY_BYTES
    other = bytes(range(16)) + (entry + 8).to_bytes(4, "little") + b"whatever"
    length = int.from_bytes(table[16:20], "little") + len(other)
    put_secret(side, (table[:16] + length.to_bytes(4, "little") + other + table[entry:])[:PAGE])
    greet(side.ring)
    begin(side.ring, Role.MH_ROLE_SOURCE, bytes(32))


# ---- the ring ----


@pytest.mark.parametrize("ahead", [abi.MH_RING_ENTRIES + 1, 1 << 31, (1 << 32) - 1], ids=hex)
def test_impossible_tail_breaks_the_ring(pair: Pair, ahead: int) -> None:
    side = pair.source
    tail = (side.ring.header().head + ahead) % (1 << 32)
    offset = side.machine.helper_offset + side.machine.helper.ring_offset
    place = offset + abi.mh_ring.fields["tail"].offset
    side.machine.helper_memory.write_raw(place, tail.to_bytes(4, "little"))
    side.machine.run_helper()
    assert side.ring.header().state == abi.mh_ring_state.MH_RING_BROKEN
    with pytest.raises(HelperStopped, match="MH_RING_BROKEN"):
        side.ask(Op.MH_OP_HELLO)


def test_full_ring_is_served_at_once(pair: Pair) -> None:
    before = pair.source.machine.exits
    requests = [Request(Op.MH_OP_EPOCH, slot=number) for number in range(abi.MH_RING_ENTRIES)]
    assert {completion.status for completion in pair.source.ring.serve(requests)} == {Status.MH_DONE}
    assert pair.source.machine.exits - before == 1


def test_statuses_are_distinct() -> None:
    assert len({status.value for status in Status}) == len(list(Status))
    assert packet_fields().version == abi.MH_ABI_VERSION
