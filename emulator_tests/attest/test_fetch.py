"""The owner's record comes to both helpers of a migration under SNP, as LAUNCH_SECRET would have brought it."""

from __future__ import annotations

import pytest

from emulator_tests.attest.machine import (
    CHALLENGE,
    FIRMWARE,
    OWNER,
    PRIVATE,
    SECRET,
    SOURCE,
    TARGET,
    Op,
    SnpHelper,
    Status,
    owner_of,
)
from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.attest.owner import NotBelieved, Reason
from mh_emulator.attest.report import Report
from mh_emulator.attest.share import Binding, seal
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.host.attest import fetch_records
from mh_emulator.host.session import connect


@pytest.mark.parametrize("part", ["milan", "genoa", "turin"])
def test_both_helpers_get_the_record_and_begin_a_session(part: str) -> None:
    source, target = SnpHelper(part, firmware=FIRMWARE), SnpHelper(part, seed=2)
    owner = owner_of(source, target)
    fetch_records(owner, source.messenger, target.messenger)
    for side in (source, target):
        assert side.private(".secret") == SECRET.table().ljust(PAGE_BYTES, b"\0")
    connect(source.ring, target.ring)


def test_the_report_is_of_the_launch_and_proves_share_challenge_and_side() -> None:
    helper = SnpHelper(firmware=FIRMWARE)
    assert helper.attest(TARGET, slot=7) == Status.MH_DONE
    share, data = helper.shown(slot=7)
    report = Report.parse(data)
    assert report.data == Binding(TARGET, share, CHALLENGE).report_data
    assert (report.measurement, report.vmpl) == (helper.digest, 0)


@pytest.mark.parametrize("slot", [0, abi.MH_RING_SLOTS - abi.MH_MESSAGE_PAGES])
def test_any_slot_with_room_behind_it(slot: int) -> None:
    helper = SnpHelper()
    assert helper.attest(SOURCE, slot) == Status.MH_DONE
    binding = Binding(SOURCE, helper.shown(slot)[0], CHALLENGE)
    assert helper.ask(Op.MH_OP_RECORD, seal(SECRET.table(), binding, PRIVATE), slot=511) == Status.MH_DONE
    assert helper.ask(Op.MH_OP_HELLO) == Status.MH_DONE


def test_no_two_launches_have_one_share() -> None:
    """RDRAND gives the same words on both: what differs is VMPCK1."""
    shares = set()
    for seed in (1, 2):
        helper = SnpHelper(seed=seed)
        helper.platform.generator.fault = FAULTS["repeats"]
        assert helper.attest() == Status.MH_DONE
        shares.add(helper.shown()[0])
    assert len(shares) == 2


def test_the_owner_does_not_believe_a_helper_of_another_owner() -> None:
    source, target = SnpHelper(firmware=FIRMWARE), SnpHelper(seed=2)
    owner = owner_of(source, target)
    other = OWNER[:-1] + bytes([OWNER[-1] ^ 1])
    data = target.image.data.replace(OWNER, other)
    with pytest.raises(NotBelieved) as told:
        fetch_records(owner, source.messenger, SnpHelper(seed=2, data=data).messenger)
    assert told.value.reason is Reason.DIGEST
    assert source.ask(Op.MH_OP_HELLO) == Status.MH_WRONG_STATE
    assert source.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    assert source.ask(Op.MH_OP_HELLO) == Status.MH_NO_KEY
