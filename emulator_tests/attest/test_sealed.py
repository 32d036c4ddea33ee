"""Records that hosts offer to a real helper: the owner's for this share, side and challenge opens, and no other."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from emulator_tests.attest.machine import (
    CHALLENGE,
    PRIVATE,
    SECRET,
    TARGET,
    Op,
    SnpHelper,
    Status,
    attested,
    holds_nothing,
    keys_of,
)
from mh_abi import abi
from mh_emulator.attest.share import Binding, seal
from mh_emulator.secret import Secret

TABLE = SECRET.table()
Make = Callable[[Binding], bytes]


def for_another(**changes: object) -> Make:
    """The owner's, for a helper that differs in one thing."""
    return lambda binding: seal(TABLE, replace(binding, **changes), PRIVATE)  # type: ignore[arg-type]


def changed_at(place: int) -> Make:
    def make(binding: Binding) -> bytes:
        sealed = bytearray(seal(TABLE, binding, PRIVATE))
        sealed[place] ^= 0x80
        return bytes(sealed)

    return make


RECORDS: dict[str, Make] = {
    "other-challenge": for_another(challenge=CHALLENGE[::-1]),
    "other-side": for_another(role=TARGET),
    "other-share": for_another(share=X25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()),
    "by-the-host": lambda binding: seal(TABLE, binding, X25519PrivateKey.generate()),
    "first-byte": changed_at(0),
    "last-byte": changed_at(len(TABLE) - 1),
    "tag": changed_at(-1),
    "nothing": lambda _: bytes(128),
    "in-the-clear": lambda _: TABLE.ljust(128, b"\0"),
}


@pytest.mark.parametrize("make", RECORDS.values(), ids=RECORDS)
def test_a_record_that_is_not_the_owners_for_this_helper_is_refused(make: Make) -> None:
    helper, binding = attested()
    scalar = helper.variable("vcpu_scalar", 32)
    assert any(scalar)
    assert helper.ask(Op.MH_OP_RECORD, make(binding)) == Status.MH_BAD_RECORD
    holds_nothing(helper, scalar, SECRET.key)
    assert helper.ask(Op.MH_OP_RECORD, seal(TABLE, binding, PRIVATE)) == Status.MH_WRONG_STATE


def test_the_record_of_one_helper_is_none_for_the_other() -> None:
    """The host exchanges what the owner has sealed."""
    (source, first), (target, second) = attested(), attested(TARGET, seed=2)
    assert source.ask(Op.MH_OP_RECORD, seal(TABLE, second, PRIVATE)) == Status.MH_BAD_RECORD
    assert target.ask(Op.MH_OP_RECORD, seal(TABLE, first, PRIVATE)) == Status.MH_BAD_RECORD


def test_while_a_record_is_awaited_scalar_and_vmpck0_are_all_that_is_kept() -> None:
    helper = SnpHelper()
    keys = keys_of(helper)
    assert helper.attest() == Status.MH_DONE
    memory, scalar = helper.all_private(), helper.variable("vcpu_scalar", 32)
    kept = [secret[at : at + 16] for secret in (scalar, keys[0]) for at in (0, 16)]
    assert [memory.count(half) for half in kept] == [1, 1, 1, 1]
    assert [key.hex() for key in keys[1:] if key[:16] in memory or key[16:] in memory] == []


def test_a_record_leaves_nothing_but_the_secret_page() -> None:
    helper, binding = attested()
    scalar, keys = helper.variable("vcpu_scalar", 32), keys_of(helper)[:1]
    private = X25519PrivateKey.from_private_bytes(scalar)
    assert private.public_key().public_bytes_raw() == binding.share
    assert helper.ask(Op.MH_OP_RECORD, seal(TABLE, binding, PRIVATE)) == Status.MH_DONE
    shared = private.exchange(PRIVATE.public_key())
    extracted = hmac.digest(CHALLENGE, shared, "sha256")
    derived = hmac.digest(extracted, binding.report_data + b"\1", "sha256")
    memory, secrets = helper.all_private(), (scalar, shared, extracted, derived, SECRET.key, *keys)
    assert [part.hex() for secret in secrets for part in parts(secret) if part in memory] == []


def parts(secret: bytes) -> Iterator[bytes]:
    """Neighbouring words, as bytes and as SHA-256 has them in registers; with what HMAC adds to a key."""
    for pad in (0, 0x36, 0x5C):
        padded = bytes(byte ^ pad for byte in secret)
        for at in range(0, len(padded) - 4, 4):
            first, second = padded[at : at + 4], padded[at + 4 : at + 8]
            yield first + second
            yield first[::-1] + second[::-1]


@pytest.mark.parametrize(
    ("table", "keeps"),
    [
        (TABLE, False),
        (Secret(SECRET.key, SECRET.guest, flags=abi.MH_OWNER_CONTEXT).table(), True),
        (Secret(SECRET.key, SECRET.guest, flags=abi.MH_OWNER_STRICT).table(), False),
        (bytes(len(TABLE)), False),
    ],
    ids=["plain", "context", "strict", "no-record"],
)
def test_only_a_record_that_lets_the_context_move_leaves_vmpck0(table: bytes, *, keeps: bool) -> None:
    helper, binding = attested()
    key = keys_of(helper)[0]
    assert any(key)
    assert helper.ask(Op.MH_OP_RECORD, seal(table, binding, PRIVATE)) == Status.MH_DONE
    assert keys_of(helper) == [key if keeps else bytes(32), *[bytes(32)] * 3]
