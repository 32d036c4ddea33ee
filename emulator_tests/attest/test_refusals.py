"""What ATTEST and RECORD refuse before they do anything: fields, states, rings, keys that are none."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from emulator_tests.attest.machine import (
    HOME,
    OWNER,
    PRIVATE,
    SECRET,
    SOURCE,
    Op,
    SnpHelper,
    Status,
    attested,
    holds_nothing,
    image_for,
    keys_of,
)
from mh_abi import abi
from mh_builder.helper import build_helper
from mh_builder.schemes.space import LayoutError, Options
from mh_emulator.attest.share import seal
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.host.ring import Lane
from mh_emulator.psp.snp.context import KEY_BYTES
from mh_emulator.psp.snp.secrets import VMPCK_OFFSET

FULL = abi.MH_RING_SLOTS
UNUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "attest-no-role": (Op.MH_OP_ATTEST, {}),
    "attest-third-role": (Op.MH_OP_ATTEST, {"role": 3}),
    "attest-no-room-behind": (Op.MH_OP_ATTEST, {"role": 1, "slot": FULL - abi.MH_MESSAGE_PAGES + 1}),
    "attest-slot-beyond": (Op.MH_OP_ATTEST, {"role": 1, "slot": FULL}),
    "attest-count": (Op.MH_OP_ATTEST, {"role": 1, "count": 1}),
    "attest-address": (Op.MH_OP_ATTEST, {"role": 1, "address": 1 << 40}),
    "attest-chunk": (Op.MH_OP_ATTEST, {"role": 1, "chunk": 1}),
    "attest-reserved": (Op.MH_OP_ATTEST, {"role": 1, "reserved1": [0, 0, 1, 0]}),
    "record-role": (Op.MH_OP_RECORD, {"role": 1}),
    "record-slot-beyond": (Op.MH_OP_RECORD, {"slot": FULL}),
    "record-count": (Op.MH_OP_RECORD, {"count": 1}),
    "record-flags": (Op.MH_OP_RECORD, {"flags": 1}),
    "record-reserved": (Op.MH_OP_RECORD, {"reserved0": 1}),
}


@pytest.fixture(scope="module")
def untouched() -> SnpHelper:
    """A helper that refuses all it is asked here, and keeps its keys."""
    return SnpHelper()


def raw(lane: Lane, op: int, fields: dict[str, Any]) -> abi.mh_status:
    number = lane.completed
    lane.submit(abi.mh_submission(op=op, **fields).dumps())
    lane.run()
    return lane.completion(number).status


@pytest.mark.parametrize(("op", "fields"), UNUSED.values(), ids=UNUSED)
def test_fields(untouched: SnpHelper, op: int, fields: dict[str, Any]) -> None:
    keys = keys_of(untouched)
    assert raw(untouched.ring, op, fields) == Status.MH_BAD_ENTRY
    assert all(map(any, keys))
    assert keys_of(untouched) == keys


@pytest.mark.parametrize("op", [Op.MH_OP_ATTEST, Op.MH_OP_RECORD])
def test_the_urgent_lane_serves_neither(untouched: SnpHelper, op: int) -> None:
    assert raw(untouched.ring.urgent, op, {"role": int(op == Op.MH_OP_ATTEST)}) == Status.MH_WRONG_RING


def test_a_record_before_a_report(untouched: SnpHelper) -> None:
    assert untouched.ask(Op.MH_OP_RECORD, bytes(128)) == Status.MH_WRONG_STATE
    assert untouched.ask(Op.MH_OP_HELLO) == Status.MH_NO_KEY


def test_no_second_report_while_the_record_is_awaited() -> None:
    helper, binding = attested()
    assert helper.attest() == Status.MH_WRONG_STATE
    assert helper.ask(Op.MH_OP_RECORD, seal(SECRET.table(), binding, PRIVATE)) == Status.MH_DONE
    assert helper.attest() == Status.MH_NO_KEY
    assert helper.ask(Op.MH_OP_HELLO) == Status.MH_DONE
    assert helper.attest() == Status.MH_WRONG_STATE


def test_a_helper_that_gives_up_forgets_its_share() -> None:
    helper, _ = attested()
    scalar = helper.variable("vcpu_scalar", 32)
    assert helper.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    holds_nothing(helper, scalar)


def test_without_randomness_there_is_no_share() -> None:
    helper = SnpHelper()
    keys = keys_of(helper)
    helper.platform.generator.fault = FAULTS["fails"]
    assert helper.attest() == Status.MH_NO_ENTROPY
    holds_nothing(helper, *keys)


def test_an_image_without_the_owners_key_asks_for_nothing() -> None:
    """The builder makes none; the owner would see another digest."""
    image = image_for()
    helper = SnpHelper(data=image.data.replace(OWNER, bytes(len(OWNER))))
    assert helper.attest() == Status.MH_NO_KEY
    assert not any(map(any, keys_of(helper)))
    assert helper.private(".snp_secrets", 0xA0, 4) == bytes(4)


def test_a_helper_whose_key_somebody_has_taken_asks_for_nothing() -> None:
    helper = SnpHelper()
    spa = helper.vm.private_spa(HOME + helper.image.section(".snp_secrets").offset)
    assert spa is not None
    helper.platform.dram.write_private(helper.vm.asid, spa + VMPCK_OFFSET, bytes(KEY_BYTES))
    assert helper.attest() == Status.MH_NO_KEY
    assert helper.private(".snp_secrets", 0xA0, 4) == bytes(4)
    holds_nothing(helper)


@pytest.mark.parametrize("owner", [bytes(32), b"\1" * 31, b"\1" * 33])
def test_the_builder_refuses_keys_that_are_none(owner: bytes) -> None:
    with pytest.raises(LayoutError, match=f"owner's key: expected 32 bytes .* found {len(owner)}: {owner.hex()}$"):
        image_for(owner)


def test_the_builder_refuses_a_key_where_launch_secret_is() -> None:
    with pytest.raises(
        LayoutError, match=r"^alias-gpa: owner's key: start host has LAUNCH_SECRET, only start snp needs one$"
    ):
        build_helper("alias-gpa", Options(owner=OWNER))


def test_an_owners_key_that_gives_no_secret_opens_nothing() -> None:
    """Of low order (RFC 7748, section 6.1): anybody could seal, for the secret is zero."""
    image = image_for((1).to_bytes(32, "little"))
    helper, binding = attested(SOURCE, image=image)
    key = HKDF(SHA256(), 32, binding.challenge, binding.report_data).derive(bytes(32))
    sealed = AESGCM(key).encrypt(bytes(12), SECRET.table(), binding.report_data)
    assert helper.ask(Op.MH_OP_RECORD, sealed) == Status.MH_BAD_RECORD
    holds_nothing(helper)
