"""The memory controller's block cipher on whole pages: AES-128 with a tweak made from the physical address.

Source: Du et al., arXiv:1712.05090 (XE); Wilke et al., SEVurity, arXiv:2004.11071 (XEX, the vectors t_i).
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mh_builder.asm import assemble
from mh_builder.asm.native import Function, is_possible
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import TweakMode

_BLOCK_SHIFT = 4
_BLOCK_BYTES = 1 << _BLOCK_SHIFT
_BLOCK_BITS = 8 * _BLOCK_BYTES
_BLOCKS = PAGE_BYTES >> _BLOCK_SHIFT
_ADDRESS_BITS = 52
_BYTE_BITS = 8
_WORD_BITS = 64

Mix: TypeAlias = Callable[[bytes, int], bytes]
"""(a page, its address): the page XOR the tweaks of its blocks."""


class Tweaks:
    """T(P): the XOR of one random 128-bit vector for every set bit of P from bit 4."""

    def __init__(self, rng: random.Random) -> None:
        vectors = [0] * _BLOCK_SHIFT + [rng.getrandbits(_BLOCK_BITS) for _ in range(_BLOCK_SHIFT, _ADDRESS_BITS)]
        vectors += [0] * (-len(vectors) % _BYTE_BITS)
        self._by_byte = [_combinations(vectors[n : n + _BYTE_BITS]) for n in range(0, len(vectors), _BYTE_BITS)]
        self._in_page = b"".join(self.block(n << _BLOCK_SHIFT).to_bytes(_BLOCK_BYTES, "little") for n in range(_BLOCKS))
        function = _native_mix()
        self.mix: Mix = self.mix_slowly if function is None else self._natively(function)
        """XOR a page with the tweaks of its blocks; natively where this process can."""

    def block(self, address: int) -> int:
        """T(address), as a little-endian number."""
        tweak = 0
        for combinations in self._by_byte:
            tweak ^= combinations[address & 0xFF]
            address >>= _BYTE_BITS
        return tweak

    def mix_slowly(self, page: bytes, address: int) -> bytes:
        """As `mix`, in Python."""
        every = int.from_bytes(self.block(address & -PAGE_BYTES).to_bytes(_BLOCK_BYTES, "little") * _BLOCKS, "little")
        tweaks = int.from_bytes(self._in_page, "little") ^ every
        return (int.from_bytes(page, "little") ^ tweaks).to_bytes(PAGE_BYTES, "little")

    def _natively(self, function: Function) -> Mix:
        # Without release of the GIL: the one buffer is for all.
        prototype = ctypes.PYFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_uint64] * 2)
        native, in_page = prototype(function.address), self._in_page
        mixed = ctypes.create_string_buffer(PAGE_BYTES)
        block, low_mask, to = self.block, (1 << _WORD_BITS) - 1, ctypes.addressof(mixed)

        def mix(page: bytes, address: int) -> bytes:
            if len(page) != PAGE_BYTES:
                raise ValueError(f"a page of {len(page):#x} bytes, {PAGE_BYTES:#x} are needed")
            tweak = block(address & -PAGE_BYTES)
            native(to, page, in_page, tweak & low_mask, tweak >> _WORD_BITS)
            return mixed.raw

        return mix


class PageCipher:
    """One key of the memory controller."""

    def __init__(self, key: bytes, mode: TweakMode, tweaks: Tweaks) -> None:
        # ECB is the bare block cipher, which the tweak turns into the controller's mode; it keeps
        # no state between blocks, so one context serves all pages.
        cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update
        self._mix = tweaks.mix
        self._xex = mode is TweakMode.XEX

    def encrypt(self, page: bytes, address: int) -> bytes:
        """Turn the plaintext of the page at the system physical `address` into what DRAM holds."""
        block = self._encrypt(self._mix(page, address))
        return self._mix(block, address) if self._xex else block

    def decrypt(self, page: bytes, address: int) -> bytes:
        """Turn what DRAM holds into the plaintext of a page."""
        return self._mix(self._decrypt(self._mix(page, address) if self._xex else page), address)


@cache
def _native_mix() -> Function | None:
    if not is_possible():
        return None
    return Function(assemble(Path(__file__).with_name("mix.s"), name="mix.s"), "native_mix")


def _combinations(vectors: list[int]) -> list[int]:
    """XOR of every subset of `vectors`, indexed by the bits of the subset."""
    sums = [0]
    for vector in vectors:
        sums += [known ^ vector for known in sums]
    return sums
