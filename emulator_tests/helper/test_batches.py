"""Batches: runs, lists, chunks, zeros; a status for every page."""

from __future__ import annotations

import pytest

from emulator_tests.helper.conftest import PAGES, Pair, PairMaker, Status, is_over
from mh_abi import abi
from mh_emulator.host.ring import Result, Ring, Sealed
from mh_emulator.host.session import Batch, export_batch, finish, import_batch, runs, share

PAGE = abi.MH_PAGE_BYTES
Kind = abi.mh_kind
Op = abi.mh_op


def statuses(results: list[Result]) -> list[abi.mh_status]:
    return [result.status for result in results]


def move(pair: Pair, batch: Batch) -> list[Result]:
    packets, exported = export_batch(pair.source.ring, batch)
    assert set(statuses(exported)) == {Status.MH_DONE}
    return import_batch(pair.target.ring, batch, packets)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_run_in_chunks(scheme: str, make_pair: PairMaker, chunk: int) -> None:
    """The low half of the contents is a run; the last chunk may be shorter."""
    pair = make_pair(scheme)
    assert statuses(move(pair, Batch(address=0, count=3, chunk=chunk))) == [Status.MH_DONE] * 3
    for number in range(3):
        assert pair.target_page(number * PAGE) == pair.contents[number * PAGE : (number + 1) * PAGE]
    assert finish(pair.source.ring, pair.target.ring) == 3


def test_last_chunk_is_shorter(pair: Pair) -> None:
    packets, _ = export_batch(pair.source.ring, Batch(address=0, count=3, chunk=2))
    assert [abi.mh_packet(sealed.packet).length for sealed in packets] == [2 * PAGE, PAGE]
    assert [len(sealed.data) for sealed in packets] == [2 * PAGE, PAGE]


def test_chunks_open_with_cryptography(pair: Pair) -> None:
    packets, _ = export_batch(pair.source.ring, Batch(address=0, count=3, chunk=3))
    assert pair.keys.open(packets[0].packet, packets[0].data) == pair.contents[: 3 * PAGE]


def test_list_in_any_order(scheme: str, make_pair: PairMaker) -> None:
    pair = make_pair(scheme)
    listed = tuple(reversed(pair.pages))
    assert statuses(move(pair, Batch(listed=listed))) == [Status.MH_DONE] * PAGES
    for number, address in enumerate(pair.pages):
        assert pair.target_page(address) == pair.contents[number * PAGE : (number + 1) * PAGE]


def test_slots_are_the_hosts_choice(pair: Pair) -> None:
    batch = Batch(listed=tuple(pair.pages))
    slot = abi.MH_RING_SLOTS - PAGES
    assert batch.submit(pair.source.ring, Op.MH_OP_EXPORT, slot).status == Status.MH_DONE
    assert statuses(pair.source.ring.results(slot, PAGES)) == [Status.MH_DONE] * PAGES
    sealed = pair.source.ring.take_sealed(slot)
    assert pair.keys.open(sealed.packet, sealed.data) == pair.contents[:PAGE]


def fill(pair: Pair, pages: int, data: bytes) -> None:
    """Make guest RAM at 16 MiB: `data` in every page."""
    machine = pair.source.machine
    for number in range(pages):
        spa = machine.memory.spa(FAR + number * PAGE)
        machine.platform.dram.write_private(machine.asid, spa, data)


FAR = 16 << 20


@pytest.mark.parametrize("chunk", [1, 16, 512])
def test_two_mebibytes_at_once(pair: Pair, chunk: int) -> None:
    fill(pair, 512, b"0123456789abcdef" * 256)
    batch = Batch(address=FAR, count=512, chunk=chunk)
    assert set(statuses(move(pair, batch))) == {Status.MH_DONE}
    target = pair.target.machine
    assert all(target.read_guest(FAR + n * PAGE) == b"0123456789abcdef" * 256 for n in range(512))
    assert finish(pair.source.ring, pair.target.ring) == 512


def test_few_exits_in_bulk(pair: Pair) -> None:
    """HLT only when the ring is empty: far fewer than 0.01 exits for a page, on either side."""
    fill(pair, 512, b"x" * PAGE)
    before = pair.source.machine.mirror.exits, pair.target.machine.mirror.exits
    move(pair, Batch(address=FAR, count=512, chunk=16))
    assert pair.source.machine.mirror.exits - before[0] == 1
    assert pair.target.machine.mirror.exits - before[1] == 1


# ---- zeros ----


def test_zero_pages_travel_as_markers(scheme: str, make_pair: PairMaker) -> None:
    pair = make_pair(scheme)
    address = pair.pages[2]
    machine, place = pair.source.machine, pair.source.machine.guest_pages()[2]
    machine.platform.dram.write_private(machine.asid, machine.memory.spa(place), bytes(PAGE))
    packets, results = export_batch(pair.source.ring, Batch(address=address, count=1))
    assert results == [Result(Status.MH_DONE, Kind.MH_KIND_ZERO)]
    assert packets[0].data == b""
    assert pair.keys.open(packets[0].packet, b"") == b""
    assert pair.target_page(address) != bytes(PAGE)
    assert statuses(import_batch(pair.target.ring, Batch(address=address, count=1), packets)) == [Status.MH_DONE]
    assert pair.target_page(address) == bytes(PAGE)


@pytest.mark.parametrize("position", [0, 1, 2047, 4094, 4095, PAGE, 2 * PAGE - 1])
def test_one_byte_makes_a_chunk_not_zero(pair: Pair, position: int) -> None:
    fill(pair, 2, bytes(PAGE))
    machine = pair.source.machine
    place = machine.memory.spa(FAR + position // PAGE * PAGE) + position % PAGE
    machine.platform.dram.write_private(machine.asid, place, b"\1")
    _, results = export_batch(pair.source.ring, Batch(address=FAR, count=2, chunk=2))
    assert [result.kind for result in results] == [Kind.MH_KIND_PAGE] * 2


def test_a_page_that_is_shared_has_no_kind(pair: Pair) -> None:
    """Though the packet before had one."""
    assert export_batch(pair.source.ring, Batch(address=FAR, count=1))[1] == [Result(Status.MH_DONE, Kind.MH_KIND_PAGE)]
    assert share(pair.source.ring, Batch(address=FAR + PAGE, count=1)) == [Result(Status.MH_DONE, 0)]


def test_zero_marker_cannot_be_forged(pair: Pair) -> None:
    """A page's packet with its kind changed would erase the page."""
    sealed = pair.source.export(pair.pages[0])
    fields = abi.mh_packet(sealed.packet)
    fields.kind = Kind.MH_KIND_ZERO.value
    before = pair.target_page(pair.pages[0])
    assert pair.target.put(pair.pages[0], Sealed(fields.dumps(), b"")) == Status.MH_BAD_TAG
    assert pair.target_page(pair.pages[0]) == before
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_WRONG_STATE
    assert is_over(pair.target)
    assert pair.target_page(pair.pages[0]) == before


def test_scan_does_not_tell_where_it_found_something(pair: Pair) -> None:
    """As many accesses for a page that is zero to its last byte as for one that starts with another."""
    fill(pair, 3, bytes(PAGE))
    machine = pair.source.machine
    for number, position in ((0, 0), (1, PAGE - 1)):
        spa = machine.memory.spa(FAR + number * PAGE)
        machine.platform.dram.write_private(machine.asid, spa + position, b"\1")
    pair.source.export(FAR + 2 * PAGE)
    seen: list[bool] = []
    machine.mirror.vcpu.trace_memory(lambda _spa, _size, is_write: seen.append(is_write))
    pair.source.export(FAR)
    first = len(seen)
    pair.source.export(FAR + PAGE)
    machine.mirror.vcpu.trace_memory(None)
    assert len(seen) == 2 * first > 0


# ---- refusals inside a batch ----


def test_export_goes_on_after_a_refused_page(pair: Pair) -> None:
    home = pair.source.machine.helper.home
    assert home is not None
    listed = (pair.pages[0], home, 0x123, 1 << 40, pair.pages[1], pair.pages[0])
    _, results = export_batch(pair.source.ring, Batch(listed=listed))
    assert statuses(results) == [
        Status.MH_DONE,
        Status.MH_PROTECTED,
        Status.MH_NOT_ALIGNED,
        Status.MH_OUT_OF_RANGE,
        Status.MH_DONE,
        Status.MH_REPEATED,
    ]


def test_completion_has_the_first_refusal(pair: Pair) -> None:
    listed = (pair.pages[0], 1 << 40, 0x123)
    assert Batch(listed=listed).submit(pair.source.ring, Op.MH_OP_EXPORT).status == Status.MH_OUT_OF_RANGE


def test_refused_pages_use_no_sequence_number(pair: Pair) -> None:
    packets, _ = export_batch(pair.source.ring, Batch(listed=(pair.pages[0], 1 << 40, pair.pages[1])))
    assert [abi.mh_packet(packets[n].packet).sequence for n in (0, 2)] == [0, 1]


@pytest.mark.parametrize("chunk", [1, 4])
def test_run_over_the_helper(pair: Pair, chunk: int) -> None:
    """A chunk that touches the helper is refused whole, from below and from above."""
    helper = pair.source.machine.helper
    assert helper.home is not None
    _, results = export_batch(pair.source.ring, Batch(address=helper.home - 4 * PAGE, count=8, chunk=chunk))
    assert statuses(results) == [Status.MH_DONE] * 4 + [Status.MH_PROTECTED] * 4
    end = helper.home + helper.memory_bytes
    _, results = export_batch(pair.source.ring, Batch(address=end - 2 * PAGE, count=4, chunk=chunk))
    refused = 2 if chunk == 1 else 4
    assert statuses(results) == [Status.MH_PROTECTED] * refused + [Status.MH_DONE] * (4 - refused)


@pytest.mark.parametrize(
    ("address", "good"), [((1 << 36) - 2 * PAGE, 2), ((1 << 64) - 2 * PAGE, 0), ((1 << 64) - PAGE, 0)]
)
def test_run_over_the_end_of_memory(make_pair: PairMaker, address: int, good: int) -> None:
    pair = make_pair("isolated")
    machine = pair.source.machine
    limit = machine.helper.descriptor.ram_limit
    if good:
        memory = machine.platform.memory(2 * PAGE)
        machine.mirror.vm.set_user_memory_region(9, limit - 2 * PAGE, 2 * PAGE, memory, 0)
    _, results = export_batch(pair.source.ring, Batch(address=address, count=4))
    assert statuses(results) == [Status.MH_DONE] * good + [Status.MH_OUT_OF_RANGE] * (4 - good)


def test_chunk_over_the_end_of_memory(make_pair: PairMaker) -> None:
    pair = make_pair("isolated")
    for address in ((1 << 36) - 2 * PAGE, (1 << 64) - 2 * PAGE):
        _, results = export_batch(pair.source.ring, Batch(address=address, count=4, chunk=4))
        assert statuses(results) == [Status.MH_OUT_OF_RANGE] * 4


def test_import_stops_at_a_refused_chunk(pair: Pair) -> None:
    batch = Batch(listed=tuple(pair.pages))
    packets, _ = export_batch(pair.source.ring, batch)
    other = abi.mh_packet(packets[2].packet)
    other.epoch = 1
    spoiled = [*packets[:2], Sealed(other.dumps(), packets[2].data), *packets[3:]]
    results = import_batch(pair.target.ring, batch, spoiled)
    assert statuses(results) == [Status.MH_DONE] * 2 + [Status.MH_WRONG_EPOCH] + [Status.MH_SKIPPED] * 3
    rest = Batch(listed=tuple(pair.pages[2:]))
    assert statuses(import_batch(pair.target.ring, rest, packets[2:])) == [Status.MH_DONE] * 4
    assert finish(pair.source.ring, pair.target.ring) == PAGES


def test_session_ends_at_the_first_bad_tag_of_a_batch(pair: Pair) -> None:
    batch = Batch(listed=tuple(pair.pages))
    packets, _ = export_batch(pair.source.ring, batch)
    broken = bytearray(packets[2].data)
    broken[17] ^= 1
    before = [pair.target_page(address) for address in pair.pages[2:]]
    spoiled = [*packets[:2], Sealed(packets[2].packet, bytes(broken)), *packets[3:]]
    results = import_batch(pair.target.ring, batch, spoiled)
    assert statuses(results) == [Status.MH_DONE] * 2 + [Status.MH_BAD_TAG] + [Status.MH_SKIPPED] * 3
    rest = Batch(listed=tuple(pair.pages[2:]))
    for slot, sealed in zip(rest.packet_slots(), packets[2:], strict=True):
        pair.target.ring.put_sealed(slot, sealed)
    assert rest.submit(pair.target.ring, Op.MH_OP_IMPORT).status == Status.MH_WRONG_STATE
    assert is_over(pair.target)
    assert [pair.target_page(address) for address in pair.pages[2:]] == before


def test_bad_chunk_leaves_all_its_pages(pair: Pair) -> None:
    batch = Batch(address=0, count=3, chunk=3)
    packets, _ = export_batch(pair.source.ring, batch)
    data = bytearray(packets[0].data)
    data[-1] ^= 1
    before = [pair.target_page(number * PAGE) for number in range(3)]
    results = import_batch(pair.target.ring, batch, [Sealed(packets[0].packet, bytes(data))])
    assert statuses(results) == [Status.MH_BAD_TAG] * 3
    assert [pair.target_page(number * PAGE) for number in range(3)] == before


def test_chunk_has_the_length_of_its_packet(pair: Pair) -> None:
    packets, _ = export_batch(pair.source.ring, Batch(address=0, count=3, chunk=3))
    for count in (1, 2):
        results = import_batch(pair.target.ring, Batch(address=0, count=count, chunk=count), packets)
        assert statuses(results) == [Status.MH_BAD_PACKET] * count


def test_repeated_page_inside_a_chunk(pair: Pair) -> None:
    pair.source.export(PAGE)
    _, results = export_batch(pair.source.ring, Batch(address=0, count=3, chunk=3))
    assert statuses(results) == [Status.MH_REPEATED] * 3
    _, results = export_batch(pair.source.ring, Batch(address=0, count=3, chunk=1))
    assert statuses(results) == [Status.MH_DONE, Status.MH_REPEATED, Status.MH_DONE]


# ---- the host's own arithmetic ----


def test_runs_join_neighbours() -> None:
    pages = [0, PAGE, 2 * PAGE, 9 * PAGE, 5 * PAGE, 6 * PAGE]
    found = [(batch.address, batch.count, batch.chunk) for batch in runs(pages, chunk=2)]
    assert found == [(0, 3, 2), (9 * PAGE, 1, 1), (5 * PAGE, 2, 2)]
    many = [number * PAGE for number in range(abi.MH_RING_SLOTS + 1)]
    assert [batch.count for batch in runs(many, chunk=16)] == [abi.MH_RING_SLOTS, 1]
    assert not list(runs([], chunk=1))


def test_ring_numbers_wrap(pair: Pair) -> None:
    assert isinstance(pair.source.ring, Ring)
    for _ in range(3 * abi.MH_RING_ENTRIES):
        assert pair.source.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
