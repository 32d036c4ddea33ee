"""What hides the blocks that wait in the scratch of gcm_open (gcm_open.s), computed in another way."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import reduce
from operator import xor

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB


@dataclass(frozen=True, slots=True)
class Masks:
    """Those of one attempt."""

    raw: bytes
    """The key."""
    last: bytes
    """Its last round key."""
    mask: bytes

    def taken(self, ciphertext: bytes) -> bytes:
        """What lies there of whole sets of blocks before their last round."""
        return _exclusive(ciphertext, self._sums(len(ciphertext)))

    def waiting(self, iv: bytes, ciphertext: bytes) -> bytes:
        """What lies there in the end: the plaintext under its masks."""
        plaintext = Cipher(AES(self.raw), CTR(iv + (2).to_bytes(4, "big"))).decryptor().update(ciphertext)
        sums = self._sums(len(plaintext))
        return _exclusive(plaintext, sums, len(sums) // 16 * _exclusive(self.last, self._step()))

    def _step(self) -> bytes:
        return Cipher(AES(self.raw), ECB()).encryptor().update(self.mask)  # noqa: S305 - CIPH of the mask

    def _sums(self, size: int) -> bytes:
        """MASK + i MASK_STEP for every block i, each half by itself."""
        halves = list(zip(struct.unpack("<2Q", self.mask), struct.unpack("<2Q", self._step()), strict=True))
        blocks = range(-(-size // 16))
        return b"".join(struct.pack("<2Q", *((mask + i * step) % 2**64 for mask, step in halves)) for i in blocks)


def _exclusive(*parts: bytes) -> bytes:
    """XOR of all of them, as long as the shortest."""
    return bytes(reduce(xor, column) for column in zip(*parts, strict=False))
