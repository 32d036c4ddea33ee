"""No shared byte is read twice by ATTEST and RECORD, and none that the helper itself has written is read."""

from __future__ import annotations

from emulator_tests.attest.machine import CHALLENGE, HOME, PRIVATE, SECRET, SOURCE, Op, SnpHelper, Status
from emulator_tests.attest.reads import Reads
from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.attest.share import Binding, seal

SUBMISSION = len(abi.mh_submission)
REQUEST, RESPONSE = (abi.MH_RING_DATA + page * PAGE_BYTES for page in (2, 3))


def reads_of(helper: SnpHelper) -> Reads:
    return Reads(helper.memory, HOME + helper.image.section(".ring").offset, helper.vcpu)


def test_attest_reads_submission_challenge_and_answer_once() -> None:
    helper = SnpHelper()
    trace = reads_of(helper)
    assert helper.attest() == Status.MH_DONE
    payload = range(RESPONSE + len(abi.mh_message), RESPONSE + len(abi.mh_message) + len(abi.mh_report_response))
    expected = {
        *range(abi.MH_RING_SUBMISSIONS, abi.MH_RING_SUBMISSIONS + SUBMISSION),
        *range(abi.MH_RING_PACKETS, abi.MH_RING_PACKETS + len(CHALLENGE)),
        *range(RESPONSE, RESPONSE + abi.MH_TAG_BYTES),
        *payload,
    }
    assert set(trace.reads) == expected
    assert set(trace.reads.values()) == {1}
    # The host writes the answer: to no page of it but that does the helper write nothing.
    assert not any(RESPONSE <= byte < RESPONSE + PAGE_BYTES for byte in trace.writes)
    assert not trace.reads.keys() & trace.writes.keys()


def test_record_reads_submission_and_record_once() -> None:
    helper = SnpHelper()
    assert helper.attest(SOURCE) == Status.MH_DONE
    sealed = seal(SECRET.table(), Binding(SOURCE, helper.shown()[0], CHALLENGE), PRIVATE)
    trace = reads_of(helper)
    assert helper.ask(Op.MH_OP_RECORD, sealed, slot=3) == Status.MH_DONE
    start = abi.MH_RING_PACKETS + 3 * abi.MH_PACKET_SLOT_BYTES
    submission = abi.MH_RING_SUBMISSIONS + SUBMISSION
    expected = {*range(submission, submission + SUBMISSION), *range(start, start + len(abi.mh_sealed))}
    assert set(trace.reads) == expected
    assert set(trace.reads.values()) == {1}
    packets = range(abi.MH_RING_PACKETS, abi.MH_RING_BYTES)
    assert not any(byte in packets for byte in trace.writes)
