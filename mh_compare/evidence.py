"""What attacks look for in memory and in packets."""

from __future__ import annotations

from mh_compare.outcome import Outcome, harmless, succeeds
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.host.ring import Sealed


def blocks_of(data: bytes) -> set[bytes]:
    """The aligned 16-byte blocks of `data`."""
    return {data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)}


def xor(first: bytes, second: bytes) -> bytes:
    """The difference of two strings of one length."""
    return bytes(a ^ b for a, b in zip(first, second, strict=True))


def nonce_reuse(first: Sealed, second: Sealed, plain: bytes, other: bytes) -> Outcome:
    """Whether packets of the pages `plain` and `other` give away their difference, as they do under one key and IV."""
    if xor(first.data, second.data) == xor(plain, other):
        return succeeds("two pages under one key and IV: their difference is known, and packets can be forged")
    return harmless("the packets are under different keys")
