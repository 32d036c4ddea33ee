"""By which 64-bit words a secret is known where it should not be."""

from __future__ import annotations

import struct
from functools import lru_cache

_FEW_BYTES = 4
"""A word of as many different bytes is a number, or a pattern."""


def words_of(*secrets: bytes) -> set[int]:
    """The 64-bit words that tell that some of `secrets` is there: none that anything else has too."""
    return set().union(*map(_telling, secrets))


@lru_cache(maxsize=256)
def _telling(secret: bytes) -> frozenset[int]:
    words = struct.iter_unpack("8s", secret[: len(secret) & ~7])
    return frozenset(int.from_bytes(word, "little") for (word,) in words if len(set(word)) > _FEW_BYTES)
