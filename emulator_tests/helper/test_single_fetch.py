"""No shared byte is read twice in a request, none is read that the helper wrote, data is written once."""

from __future__ import annotations

from collections import Counter

import pytest

from emulator_tests.helper.conftest import SECRET, Pair, Status
from emulator_tests.helper.rings import connected, start
from mh_abi import abi
from mh_emulator.host.ring import Request, Sealed
from mh_emulator.host.session import Batch, export_batch
from mh_emulator.host.side import Side
from mh_emulator.peer import Peer

Op = abi.mh_op
TAIL = abi.mh_ring.fields["tail"].offset
TAILS = range(TAIL, TAIL + 8)


class SharedTrace:
    """Accesses of a helper's vCPU to its ring, by byte offset in the ring."""

    def __init__(self, side: Side, number: int = 0) -> None:
        machine = side.machine
        start = machine.helper_offset + machine.helper.ring_offset + number * machine.helper.descriptor.ring_stride
        pages = range(0, abi.MH_RING_BYTES, abi.MH_PAGE_BYTES)
        self._places = {machine.helper_memory.spa(start + page): page for page in pages}
        self.reads: Counter[int] = Counter()
        self.writes: Counter[int] = Counter()
        self.read_after_write: set[int] = set()
        machine.mirror.vcpus[number].trace_memory(self._note)

    def _note(self, spa: int, size: int, is_write: bool) -> None:
        page = self._places.get(spa & -abi.MH_PAGE_BYTES)
        if page is None:
            return
        for byte in range(page + spa % abi.MH_PAGE_BYTES, page + spa % abi.MH_PAGE_BYTES + size):
            if is_write:
                self.writes[byte] += 1
            else:
                self.reads[byte] += 1
                if self.writes[byte]:
                    self.read_after_write.add(byte)

    def fetched(self) -> Counter[int]:
        """Reads without those of the tails, which are polled."""
        return Counter({byte: count for byte, count in self.reads.items() if byte not in TAILS})


def check(trace: SharedTrace) -> None:
    assert set(trace.fetched().values()) == {1}
    assert not trace.read_after_write


def test_import_reads_each_byte_once(pair: Pair) -> None:
    sealed = pair.source.export(pair.pages[0])
    trace = SharedTrace(pair.target)
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_DONE
    check(trace)
    # One submission, one packet with its tag, one page: everything was read, nothing else.
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + len(abi.mh_packet) + abi.MH_PAGE_BYTES


@pytest.mark.parametrize("spoil", ["tag", "header", "address"])
def test_refused_import_reads_nothing_twice(pair: Pair, spoil: str) -> None:
    sealed = pair.source.export(pair.pages[0])
    packet = bytearray(sealed.packet)
    packet[{"tag": -1, "header": 0, "address": abi.mh_packet.fields["address"].offset}[spoil]] ^= 1
    trace = SharedTrace(pair.target)
    assert pair.target.put(pair.pages[0], Sealed(bytes(packet), sealed.data)) != Status.MH_DONE
    check(trace)


def test_export_writes_each_byte_once_and_reads_none_of_it(pair: Pair) -> None:
    trace = SharedTrace(pair.source)
    pair.source.export(pair.pages[0])
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission)
    assert sum(trace.writes[abi.MH_RING_RESULTS + byte] for byte in range(len(abi.mh_result))) == len(abi.mh_result)
    data = range(abi.MH_RING_DATA, abi.MH_RING_BYTES)
    written = Counter({byte: count for byte, count in trace.writes.items() if byte in data})
    assert sum(written.values()) == abi.MH_PAGE_BYTES
    assert set(written.values()) == {1}


@pytest.mark.parametrize("op", [Op.MH_OP_ABORT, Op.MH_OP_FINISH, Op.MH_OP_HELLO, Op.MH_OP_START, 99])
def test_control_operations_read_their_submission_once(pair: Pair, op: int) -> None:
    trace = SharedTrace(pair.source)
    pair.source.ring.serve([Request(op, role=op == Op.MH_OP_START, count=op == Op.MH_OP_START)])
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission)


def test_tail_is_read_once_for_a_batch(pair: Pair) -> None:
    trace = SharedTrace(pair.source)
    pair.source.ring.serve([Request(Op.MH_OP_EPOCH)] * 16)
    # Once after HLT, once when the batch is done.
    assert trace.reads[TAIL] == 2


def test_list_entries_are_read_once(pair: Pair) -> None:
    batch = Batch(listed=tuple(pair.pages))
    pair.source.ring.put_list(0, batch.listed)
    trace = SharedTrace(pair.source)
    assert batch.submit(pair.source.ring, Op.MH_OP_EXPORT).status == Status.MH_DONE
    check(trace)
    entries = range(abi.MH_RING_LIST, abi.MH_RING_LIST + 8 * len(pair.pages))
    assert all(trace.reads[byte] == 1 for byte in entries)


def test_chunk_is_read_once(pair: Pair) -> None:
    batch = Batch(address=0, count=3, chunk=3)
    packets, _ = export_batch(pair.source.ring, batch)
    pair.target.ring.put_sealed(0, packets[0])
    trace = SharedTrace(pair.target)
    assert batch.submit(pair.target.ring, Op.MH_OP_IMPORT).status == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + len(abi.mh_packet) + 3 * abi.MH_PAGE_BYTES


def test_urgent_import_reads_each_byte_once(pair: Pair) -> None:
    batch = Batch(address=pair.pages[0], count=1)
    packets, _ = export_batch(pair.source.ring.urgent, batch)
    pair.target.ring.urgent.put_sealed(0, packets[0])
    trace = SharedTrace(pair.target)
    assert batch.submit(pair.target.ring.urgent, Op.MH_OP_IMPORT).status == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + len(abi.mh_packet) + abi.MH_PAGE_BYTES


def test_list_of_shared_pages_is_read_once(pair: Pair) -> None:
    batch = Batch(listed=tuple(pair.pages))
    pair.source.ring.put_list(0, batch.listed)
    trace = SharedTrace(pair.source)
    assert batch.submit(pair.source.ring, Op.MH_OP_SHARE).status == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + 8 * len(pair.pages)


def test_hello_is_read_once(pair: Pair) -> None:
    """START with a peer's hello, from the first check to the last."""
    side = pair.source
    assert side.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    side.ring.ask("hello", Request(Op.MH_OP_HELLO))
    side.ring.put_packet(3, Peer(SECRET).hello)
    trace = SharedTrace(side)
    request = Request(Op.MH_OP_START, role=abi.mh_role.MH_ROLE_SOURCE, slot=3, count=1)
    assert side.ring.serve([request])[0].status == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + len(abi.mh_hello)


def test_our_hello_is_written_once_and_not_read(pair: Pair) -> None:
    assert pair.source.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    trace = SharedTrace(pair.source)
    assert pair.source.ask(Op.MH_OP_HELLO) == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission)
    hello = range(abi.MH_RING_PACKETS, abi.MH_RING_PACKETS + len(abi.mh_hello))
    assert {trace.writes[byte] for byte in hello} == {1}


@pytest.mark.parametrize("op", [Op.MH_OP_EPOCH, Op.MH_OP_FINISH])
def test_end_packet_is_read_once(pair: Pair, op: int) -> None:
    assert pair.source.ask(op) == Status.MH_DONE
    pair.target.ring.put_sealed(0, pair.source.ring.take_sealed(0))
    trace = SharedTrace(pair.target)
    assert pair.target.ask(op) == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + len(abi.mh_packet)


@pytest.mark.parametrize("urgent", [False, True], ids=["bulk", "urgent"])
def test_imported_list_is_read_once(pair: Pair, *, urgent: bool) -> None:
    source, target = (side.ring.urgent if urgent else side.ring for side in (pair.source, pair.target))
    batch = Batch(listed=tuple(pair.pages[:3]))
    packets, _ = export_batch(source, batch)
    for slot, sealed in zip(batch.packet_slots(), packets, strict=True):
        target.put_sealed(slot, sealed)
    target.put_list(0, batch.listed)
    trace = SharedTrace(pair.target)
    assert batch.submit(target, Op.MH_OP_IMPORT).status == Status.MH_DONE
    check(trace)
    each = len(abi.mh_packet) + abi.MH_PAGE_BYTES + 8
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + 3 * each


def test_urgent_export_reads_no_more_than_it_is_asked(pair: Pair) -> None:
    batch = Batch(listed=tuple(pair.pages[:3]))
    pair.source.ring.urgent.put_list(0, batch.listed)
    trace = SharedTrace(pair.source)
    assert batch.submit(pair.source.ring.urgent, Op.MH_OP_EXPORT).status == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + 3 * 8


def test_zeros_are_read_once(pair: Pair) -> None:
    """A packet of zeros has no data; what lies in its place is not looked at."""
    machine, page = pair.source.machine, pair.pages[0]
    machine.platform.dram.write_private(machine.asid, machine.memory.spa(page), bytes(abi.MH_PAGE_BYTES))
    sealed = pair.source.export(page)
    trace = SharedTrace(pair.target)
    assert pair.target.put(page, sealed) == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + len(abi.mh_packet)


def test_several_chunks_are_read_once(pair: Pair) -> None:
    batch = Batch(address=0, count=3, chunk=2)
    packets, _ = export_batch(pair.source.ring, batch)
    for slot, sealed in zip(batch.packet_slots(), packets, strict=True):
        pair.target.ring.put_sealed(slot, sealed)
    trace = SharedTrace(pair.target)
    assert batch.submit(pair.target.ring, Op.MH_OP_IMPORT).status == Status.MH_DONE
    check(trace)
    expected = len(abi.mh_submission) + 2 * len(abi.mh_packet) + 3 * abi.MH_PAGE_BYTES
    assert sum(trace.fetched().values()) == expected


@pytest.mark.parametrize("op", [Op.MH_OP_RESUME, Op.MH_OP_SHARE])
def test_other_operations_read_their_submission_once(pair: Pair, op: int) -> None:
    trace = SharedTrace(pair.source)
    request = Batch(address=0, count=3, chunk=3).request(op) if op == Op.MH_OP_SHARE else Request(op)
    assert pair.source.ring.serve([request])[0].status == Status.MH_DONE
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission)


def fetched_all(trace: SharedTrace, *records: int) -> None:
    """One submission, and these many bytes beside it, each of them once."""
    check(trace)
    assert sum(trace.fetched().values()) == len(abi.mh_submission) + sum(records)


START = Request(Op.MH_OP_START, role=abi.mh_role.MH_ROLE_SOURCE, count=1)


@pytest.mark.parametrize("position", [None, 0, 4, 8, 10, 12, 16, 40, 70, 96, 127])
def test_start_reads_the_peers_hello_once(pair: Pair, position: int | None) -> None:
    """The true one, and one that is refused for each of its fields."""
    assert pair.source.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    assert pair.source.ask(Op.MH_OP_HELLO) == Status.MH_DONE
    hello = bytearray(Peer(SECRET).hello)
    if position is not None:
        hello[position] ^= 0xFF
    pair.source.ring.put_packet(0, bytes(hello))
    trace = SharedTrace(pair.source)
    status = pair.source.ring.serve([START])[0].status
    assert (status == Status.MH_DONE) == (position is None)
    fetched_all(trace, len(abi.mh_hello))


@pytest.mark.parametrize("number", [1, 2])
def test_join_reads_its_submission_once(number: int) -> None:
    rings = connected()
    for side in (rings.sources[0], rings.targets[0]):
        side.ask(Op.MH_OP_ABORT)
    start(rings.sources[0].machine, rings.targets[0].machine, 3)
    trace = SharedTrace(rings.sources[number], number)
    assert rings.sources[number].ask(Op.MH_OP_JOIN) == Status.MH_DONE
    fetched_all(trace)


@pytest.mark.parametrize("op", [Op.MH_OP_EPOCH, Op.MH_OP_FINISH])
@pytest.mark.parametrize("field", [None, "magic", "sequence", "urgent", "address", "tag"])
def test_an_end_packet_is_read_once(pair: Pair, op: int, field: str | None) -> None:
    assert pair.source.ask(op) == Status.MH_DONE
    packet = bytearray(pair.source.ring.take_sealed(0).packet)
    if field:
        packet[abi.mh_packet.fields[field].offset] ^= 1
    pair.target.ring.put_sealed(0, Sealed(bytes(packet), b""))
    trace = SharedTrace(pair.target)
    assert (pair.target.ask(op) == Status.MH_DONE) == (field is None)
    check(trace)
    if field in {None, "tag"}:
        fetched_all(trace, len(abi.mh_packet))


def test_vmsas(pair: Pair) -> None:
    batch = Batch(address=0, count=1, flags=abi.MH_BATCH_VMSA)
    for side in (pair.source, pair.target):
        machine = side.machine
        memory = machine.platform.memory(abi.MH_PAGE_BYTES)
        gpa = (machine.base + machine.helper.descriptor.vmsa_offset) % (1 << 64)
        machine.mirror.vm.set_user_memory_region(9, gpa, abi.MH_PAGE_BYTES, memory, 0)
    trace = SharedTrace(pair.source)
    assert batch.submit(pair.source.ring, Op.MH_OP_EXPORT).status == Status.MH_DONE
    fetched_all(trace)
    pair.target.ring.put_sealed(0, pair.source.ring.take_sealed(0))
    trace = SharedTrace(pair.target)
    assert batch.submit(pair.target.ring, Op.MH_OP_IMPORT).status == Status.MH_DONE
    fetched_all(trace, len(abi.mh_packet), abi.MH_PAGE_BYTES)


@pytest.mark.parametrize("flags", [0, abi.MH_BATCH_PRIVATE])
def test_run_of_shared_pages(pair: Pair, flags: int) -> None:
    trace = SharedTrace(pair.source)
    batch = Batch(address=0, count=3, chunk=2, flags=flags)
    assert batch.submit(pair.source.ring, Op.MH_OP_SHARE).status == Status.MH_DONE
    fetched_all(trace)
