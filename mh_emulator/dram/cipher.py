"""The memory controller's block cipher on whole pages: AES-128 with a tweak made from the physical address.

Source: Du et al., arXiv:1712.05090 (XE); Wilke et al., SEVurity, arXiv:2004.11071 (XEX, the vectors t_i).
"""

from __future__ import annotations

import random

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mh_builder.paging import PAGE_BYTES, PAGE_SHIFT
from mh_builder.parts import TweakMode

_BLOCK_SHIFT = 4
_BLOCK_BITS = 128
_BLOCKS = PAGE_BYTES >> _BLOCK_SHIFT
_ADDRESS_BITS = 52
_BYTE_BITS = 8
# Multiplied by a block: that block, repeated over a page.
_EVERY_BLOCK = sum(1 << _BLOCK_BITS * n for n in range(_BLOCKS))


class Tweaks:
    """T(P): the XOR of one random 128-bit vector for every set bit of P from bit 4."""

    def __init__(self, rng: random.Random) -> None:
        vectors = [0] * _BLOCK_SHIFT + [rng.getrandbits(_BLOCK_BITS) for _ in range(_BLOCK_SHIFT, _ADDRESS_BITS)]
        vectors += [0] * (-len(vectors) % _BYTE_BITS)
        self._by_byte = [_combinations(vectors[n : n + _BYTE_BITS]) for n in range(0, len(vectors), _BYTE_BITS)]
        self._in_page = sum(self.block(n << _BLOCK_SHIFT) << _BLOCK_BITS * n for n in range(_BLOCKS))

    def block(self, address: int) -> int:
        """T(address), as a little-endian number."""
        tweak = 0
        for combinations in self._by_byte:
            tweak ^= combinations[address & 0xFF]
            address >>= _BYTE_BITS
        return tweak

    def page(self, address: int) -> int:
        """T of all blocks of the page at `address`, as one little-endian number of 4096 bytes."""
        return self.block(address >> PAGE_SHIFT << PAGE_SHIFT) * _EVERY_BLOCK ^ self._in_page


class PageCipher:
    """One key of the memory controller."""

    def __init__(self, key: bytes, mode: TweakMode) -> None:
        # ECB is the bare block cipher, which the tweak turns into the controller's mode; it keeps
        # no state between blocks, so one context serves all pages.
        cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update
        self._xex = mode is TweakMode.XEX

    def encrypt(self, page: memoryview | bytes, tweak: int) -> bytes:
        """Turn the plaintext of a page into what DRAM holds; `tweak` from `Tweaks.page`."""
        mixed = int.from_bytes(page, "little") ^ tweak
        block = self._encrypt(mixed.to_bytes(PAGE_BYTES, "little"))
        return _xor(block, tweak) if self._xex else block

    def decrypt(self, page: memoryview | bytes, tweak: int) -> bytes:
        """Turn what DRAM holds into the plaintext of a page."""
        block = self._decrypt(_xor(page, tweak) if self._xex else page)
        return _xor(block, tweak)


def _combinations(vectors: list[int]) -> list[int]:
    """XOR of every subset of `vectors`, indexed by the bits of the subset."""
    sums = [0]
    for vector in vectors:
        sums += [known ^ vector for known in sums]
    return sums


def _xor(page: memoryview | bytes, tweak: int) -> bytes:
    return (int.from_bytes(page, "little") ^ tweak).to_bytes(PAGE_BYTES, "little")
