"""What a hostile host brings back from the secure processor: one answer counts, and after any other nothing stays."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from emulator_tests.attest.carrier import carried, flipped
from emulator_tests.attest.machine import CHALLENGE, HOME, TARGET, SnpHelper, Status, holds_nothing, keys_of
from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp.message import HEADER_BYTES, Header, seal

ANSWER_BYTES = len(abi.mh_report_response)

ANSWERS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "tag": flipped(0),
    "tag-end": flipped(15),
    "first-byte": flipped(HEADER_BYTES),
    "report": flipped(HEADER_BYTES + 0x20 + 0x90),
    "last-byte": flipped(HEADER_BYTES + ANSWER_BYTES - 1),
    "nothing": lambda _, __: b"",
    "request-sent-back": lambda message, _: message,
    "ones": lambda _, __: b"\xff" * PAGE_BYTES,
    "cut": lambda _, answer: answer[: HEADER_BYTES + 0x200],
}


@pytest.mark.parametrize("change", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_the_host_changes_is_none(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes, bytes], bytes]
) -> None:
    helper = SnpHelper()
    keys = keys_of(helper)
    carried(monkeypatch, helper.vm, change)
    assert helper.attest() == Status.MH_NO_REPORT
    holds_nothing(helper, *keys)


def test_the_header_in_the_answer_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper knows what it has to be: a host that writes another one there changes nothing."""
    helper = SnpHelper()
    carried(
        monkeypatch, helper.vm, lambda _, answer: answer[:16] + b"\xff" * (HEADER_BYTES - 16) + answer[HEADER_BYTES:]
    )
    assert helper.attest() == Status.MH_DONE


def answer(key: bytes, number: int = 2, kind: int = 6, status: int = 0, size: int = 0x4A0) -> bytes:
    """What only the secure processor can make."""
    payload = struct.pack("<II24x", status, size).ljust(ANSWER_BYTES, b"r")
    return seal(key, Header(number, kind, ANSWER_BYTES, 0), payload)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Status.MH_DONE),
        ({"status": 0x16}, Status.MH_NO_REPORT),
        ({"size": 0x4A1}, Status.MH_NO_REPORT),
        ({"size": 0x49F}, Status.MH_NO_REPORT),
        ({"number": 1}, Status.MH_NO_REPORT),
        ({"number": 4}, Status.MH_NO_REPORT),
        ({"kind": 5}, Status.MH_NO_REPORT),
        ({"kind": 4}, Status.MH_NO_REPORT),
    ],
    ids=str,
)
def test_only_the_answer_to_this_message_counts(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, int], expected: abi.mh_status
) -> None:
    helper = SnpHelper()
    key, *others = keys_of(helper)
    carried(monkeypatch, helper.vm, lambda _, __: answer(key, **fields))
    assert helper.attest() == expected
    if expected != Status.MH_DONE:
        holds_nothing(helper, key, *others)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_another_vmpck_makes_no_answer(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A kernel at a lower VMPL with a key of its own speaks for no secure processor."""
    helper = SnpHelper()
    keys = keys_of(helper)
    carried(monkeypatch, helper.vm, lambda _, __: answer(keys[number]))
    assert helper.attest() == Status.MH_NO_REPORT


def test_an_answer_of_another_guest_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    other, taken = SnpHelper(seed=2), []
    carried(monkeypatch, other.vm, lambda _, answer: taken.append(answer) or answer)  # type: ignore[func-returns-value]
    assert other.attest() == Status.MH_DONE
    helper = SnpHelper()
    carried(monkeypatch, helper.vm, lambda _, __: taken[0])
    assert helper.attest() == Status.MH_NO_REPORT


def test_the_request_is_what_the_secure_processor_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `cryptography`, field by field."""
    helper, sent = SnpHelper(), []
    key = keys_of(helper)[0]
    carried(monkeypatch, helper.vm, lambda message, answer: sent.append(message) or answer)  # type: ignore[func-returns-value]
    assert helper.attest(TARGET) == Status.MH_DONE
    (message,) = sent
    assert message[16:48] == struct.pack("<16xQ8x", 1)
    assert message[48:96] == struct.pack("<BBHBBHIB35x", 1, 1, 0x60, 5, 1, 96, 0, 0)
    sealed = message[96:192] + message[:16]
    payload = AESGCM(key).decrypt((1).to_bytes(12, "little"), sealed, message[48:96])
    share = helper.shown()[0]
    assert payload == share + CHALLENGE + b"\2\0\0\0" + b"SEV MH share" + bytes(32)
    assert helper.private(".snp_secrets", 0xA0, 4) == struct.pack("<I", 2)


def test_the_ciphertext_of_an_answer_never_lies_in_private_memory() -> None:
    """The host has it, and would know what lies there: it is hashed under a mask."""
    helper = SnpHelper()
    assert helper.attest() == Status.MH_DONE
    sealed = helper.ring.take_data(3, HEADER_BYTES + ANSWER_BYTES)[HEADER_BYTES:]
    memory = helper.all_private()
    assert not any(sealed[at : at + 16] in memory for at in range(0, len(sealed), 16))


def test_messages_before_ours_are_counted() -> None:
    """Whoever was at VMPL0 before the helper has used numbers up."""
    helper = SnpHelper()
    spa = helper.vm.private_spa(HOME + helper.image.section(".snp_secrets").offset)
    assert spa is not None
    helper.platform.dram.write_private(helper.vm.asid, spa + 0xA0, struct.pack("<I", 6))
    assert helper.attest() == Status.MH_NO_REPORT
    assert helper.private(".snp_secrets", 0xA0, 4) == struct.pack("<I", 8)
