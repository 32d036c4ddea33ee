"""A vCPU that is lost in the middle of ATTEST, and another one that begins in its place: nothing is asked again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator_tests.attest.machine import CHALLENGE, SOURCE, SnpHelper, Status, holds_nothing, keys_of
from mh_abi import abi
from mh_emulator.host.ring import BULK, Request
from mh_emulator.kvm.exits import Reason


def half_a_key(helper: SnpHelper) -> bool:
    key = keys_of(helper)[1]
    return key[:1] == b"\0" and any(key)


def one_key(helper: SnpHelper) -> bool:
    return not any(map(any, keys_of(helper)[1:]))


def scalar(helper: SnpHelper) -> bool:
    return any(helper.variable("vcpu_scalar", 32))


def counted(helper: SnpHelper) -> bool:
    return any(helper.private(".snp_secrets", 0xA0, 4))


LOST: dict[str, tuple[Callable[[SnpHelper], bool], int]] = {
    "half-a-key": (half_a_key, 10),
    "one-key": (one_key, 50),
    "scalar": (scalar, 200),
    "counted": (counted, 1000),
}
"""What is to be seen of how far it has come; after how many instructions each to look."""


@pytest.mark.parametrize(("has_come", "steps"), LOST.values(), ids=LOST)
def test_a_start_in_its_place_finds_nothing(has_come: Callable[[SnpHelper], bool], steps: int) -> None:
    helper = SnpHelper(starts=(0, abi.MH_START_ANEW))
    keys = keys_of(helper)
    helper.ring.put_packet(0, CHALLENGE)
    helper.ring.submit(Request(abi.mh_op.MH_OP_ATTEST, role=SOURCE).dumps(0))
    while not has_come(helper):
        assert helper.vcpu.run(steps).reason is Reason.LIMIT
    helper.ring.write(BULK.tail, bytes(4))
    helper.go_on_with(1)
    assert helper.attest() == Status.MH_NO_KEY
    holds_nothing(helper, *keys, *(key[16:] for key in keys))
