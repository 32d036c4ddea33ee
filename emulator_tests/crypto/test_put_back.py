"""What a guest gets where a host writes to the scratch in the middle of an import: nothing that the key is part of.

docs/security.md, "What the host sees of private memory", has what that means to somebody who reads the guest's page.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from unicorn import unicorn_const

from .kernels import MASK, Emulated, make_job, make_key, masks
from .masks import exclusive

LAST_ROUND = bytes.fromhex("66410f38dd01")
"""aesenclast xmm0, [r9]: the first block of a set."""
RELEASE = "gcm_release_rest"
BLOCK_BYTES = 16
LENGTH = 8 * BLOCK_BYTES


class PutBack:
    """An import of one set of blocks, into which a host steps twice: before the last round, and behind the tag."""

    def __init__(self) -> None:
        chance = random.Random(1)
        self.engine = Emulated()
        raw, self.iv, self.plaintext = (chance.randbytes(count) for count in (32, 12, LENGTH))
        sealed = AESGCM(raw).encrypt(self.iv, self.plaintext, b"")
        self.ciphertext = sealed[:-16]
        self.key = make_key(self.engine, raw)
        self.job = make_job(self.engine, self.iv, b"", self.ciphertext, sealed[-16:])
        hidden = masks(self.engine, self.key)
        self.masks, self.veil = hidden.taken(bytes(LENGTH)), hidden.veil()
        self.taken = b""

    def guest(self, before: Callable[[PutBack], None] | None, behind: Callable[[PutBack], None] | None) -> bytes:
        """What comes to the destination."""

        def code(_uc: object, address: int, size: int, _data: object) -> None:
            if self.engine.read(address, size) == LAST_ROUND:
                self.taken = self.job.read("scratch", LENGTH)
                if before:
                    before(self)
            if address == self.engine.symbols[RELEASE] and behind:
                behind(self)

        self.engine.uc.hook_add(unicorn_const.UC_HOOK_CODE, code)
        assert self.engine.call("gcm_open", self.key, self.job.address, vector=MASK).eax == 0
        assert self.taken == exclusive(self.ciphertext, self.masks)
        return self.job.read("destination", LENGTH)

    def write(self, place: int, data: bytes) -> None:
        self.engine.write(self.job.fields["scratch"] + place * BLOCK_BYTES, data)


@pytest.fixture
def attempt() -> PutBack:
    return PutBack()


def test_nothing_is_put_back(attempt: PutBack) -> None:
    assert attempt.guest(None, None) == attempt.plaintext


def test_what_was_there_before_the_plaintext(attempt: PutBack) -> None:
    """The ciphertext under the veil."""
    got = attempt.guest(None, lambda host: host.write(0, host.taken))
    assert got == exclusive(attempt.ciphertext, LENGTH // BLOCK_BYTES * attempt.veil)


def test_what_was_there_before_the_plaintext_one_place_further(attempt: PutBack) -> None:
    """The same under both places' masks, whose sum is not the veil or near it."""
    got = attempt.guest(None, lambda host: host.write(1, host.taken[:BLOCK_BYTES]))
    both = exclusive(attempt.masks, attempt.masks[BLOCK_BYTES:])
    assert got[BLOCK_BYTES : 2 * BLOCK_BYTES] == exclusive(attempt.ciphertext, both, attempt.veil)
    assert both[:BLOCK_BYTES] != attempt.veil


def test_known_bytes_before_the_last_round(attempt: PutBack) -> None:
    """The key stream under the masks, which somebody who has the plaintext learns then: no key is in them."""
    got = attempt.guest(lambda host: host.write(0, bytes(LENGTH)), None)
    assert exclusive(got, attempt.plaintext, attempt.ciphertext) == attempt.masks
