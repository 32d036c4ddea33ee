"""No shared byte is read twice by CONTEXT, and none that the helper itself has written is read."""

from __future__ import annotations

from emulator_tests.attest.reads import Reads
from emulator_tests.vmpl.context import absorb, export, leaving
from emulator_tests.vmpl.pairs import Status
from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.snp_machine import SnpMachine

SLOT = 5
PACKET = abi.MH_RING_PACKETS + SLOT * abi.MH_PACKET_SLOT_BYTES
DATA = abi.MH_RING_DATA + SLOT * PAGE_BYTES
RESPONSE = DATA + 3 * PAGE_BYTES


def reads_of(machine: SnpMachine) -> Reads:
    ring = machine.placement.topology.ram_addr(machine.helper.base + machine.image.ring_offset)
    return Reads(machine.memory, ring, machine.helpers[0])


def submission(machine: SnpMachine) -> range:
    """Where the next one lies."""
    number = machine.rings[0].completed % abi.MH_RING_ENTRIES
    start = abi.MH_RING_SUBMISSIONS + number * len(abi.mh_submission)
    return range(start, start + len(abi.mh_submission))


def answer(size: int) -> set[int]:
    """Tag and payload: the header is the helper's own."""
    start = RESPONSE + len(abi.mh_message)
    return {*range(RESPONSE, RESPONSE + abi.MH_TAG_BYTES), *range(start, start + size)}


def check(trace: Reads, expected: set[int]) -> None:
    assert set(trace.reads) == expected
    assert set(trace.reads.values()) == {1}
    assert not trace.reads.keys() & trace.writes.keys() - set(range(PACKET, PACKET + 8))


def test_the_source_reads_submission_place_and_answer_once() -> None:
    both = leaving()
    expected = {*submission(both.source), *range(PACKET, PACKET + 8), *answer(len(abi.mh_export_response))}
    trace = reads_of(both.source)
    assert export(both, slot=SLOT) == Status.MH_DONE
    check(trace, expected)


def test_the_target_reads_submission_packet_data_and_answer_once() -> None:
    both = leaving()
    assert export(both, slot=SLOT) == Status.MH_DONE
    packet, data = range(PACKET, PACKET + len(abi.mh_packet)), range(DATA, DATA + abi.MH_CONTEXT_BYTES)
    expected = {*submission(both.target), *packet, *data, *answer(len(abi.mh_absorb_response))}
    trace = reads_of(both.target)
    assert absorb(both, slot=SLOT) == Status.MH_DONE
    check(trace, expected)
