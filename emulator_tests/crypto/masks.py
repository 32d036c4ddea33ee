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
    mask: bytes

    def taken(self, ciphertext: bytes) -> bytes:
        """What lies there of whole sets of blocks before their last round."""
        return exclusive(ciphertext, self._sums(len(ciphertext)))

    def waiting(self, iv: bytes, ciphertext: bytes) -> bytes:
        """What lies there in the end: the plaintext under its masks."""
        plaintext = Cipher(AES(self.raw), CTR(iv + (2).to_bytes(4, "big"))).decryptor().update(ciphertext)
        sums = self._sums(len(plaintext))
        return exclusive(plaintext, sums, len(sums) // 16 * self.veil())

    def veil(self) -> bytes:
        """The step after one round of AES without a key (FIPS 197, 5.1)."""
        shifted = [_substitute(self._step()[at * 5 % 16]) for at in range(16)]
        columns = [shifted[at : at + 4] for at in range(0, 16, 4)]
        return bytes(
            _doubled(column[row]) ^ _doubled(column[row - 3]) ^ column[row - 3] ^ column[row - 2] ^ column[row - 1]
            for column in columns
            for row in range(4)
        )

    def _step(self) -> bytes:
        return Cipher(AES(self.raw), ECB()).encryptor().update(self.mask)  # noqa: S305 - CIPH of the mask

    def _sums(self, size: int) -> bytes:
        """MASK + i MASK_STEP for every block i, each half by itself."""
        halves = list(zip(struct.unpack("<2Q", self.mask), struct.unpack("<2Q", self._step()), strict=True))
        blocks = range(-(-size // 16))
        return b"".join(struct.pack("<2Q", *((mask + i * step) % 2**64 for mask, step in halves)) for i in blocks)


def _doubled(byte: int) -> int:
    """Times x in the field of AES."""
    return byte << 1 & 0xFF ^ (byte >> 7) * 0x1B


def _substitute(byte: int) -> int:
    """SubBytes (FIPS 197, 5.1.1): the inverse in that field, which is the power 254, through an affine map."""
    inverse = reduce(_product, [byte] * 254)
    return reduce(xor, ((inverse << turn | inverse >> 8 - turn) & 0xFF for turn in range(5))) ^ 0x63


def _product(left: int, right: int) -> int:
    result = 0
    for bit in f"{right:08b}":
        result = _doubled(result) ^ left * int(bit)
    return result


def exclusive(*parts: bytes) -> bytes:
    """XOR of all of them, as long as the shortest."""
    return bytes(reduce(xor, column) for column in zip(*parts, strict=False))
