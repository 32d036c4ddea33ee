"""In which order a machine hands out its frames."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from functools import cache, lru_cache
from threading import Lock

_REMEMBERED = 8


class FrameOrder:
    """The numbers below `count`, each once, in an order that looks random; those that were asked for are remembered."""

    def __init__(self, count: int, rng: random.Random) -> None:
        self._count = count
        self._bits = max(2, (count - 1).bit_length())
        # A linear congruential generator modulo 2^n has full period for c odd and a % 4 == 1.
        self._factor = (rng.getrandbits(self._bits) & ~3 | 1) ^ (4 if self._bits > 2 else 0)
        self._increment = rng.getrandbits(self._bits) | 1
        self._state = rng.getrandbits(self._bits)
        self._known = array("Q")
        self._lock = Lock()

    def numbers(self, start: int, count: int) -> Sequence[int]:
        """So many of them from the one in place `start`; that many there have to be."""
        end = start + count
        if end > self._count:
            raise ValueError(f"{end} frames of {self._count}")
        if len(self._known) < end:
            with self._lock:
                self._extend(end)
        return self._known[start:end]

    def _extend(self, end: int) -> None:
        # The low bits of such a generator alternate; reversing all bits moves that to the top.
        bits, factor, increment, state = self._bits, self._factor, self._increment, self._state
        half = (bits + 1) // 2
        reverse, up, down = _reversed(half), bits - half, 2 * half - bits
        mask, low = (1 << bits) - 1, (1 << half) - 1
        missing = end - len(self._known)
        while missing:
            number = reverse[state & low] << up | reverse[state >> half] >> down
            state = state * factor + increment & mask
            if number < self._count:
                self._known.append(number)
                missing -= 1
        self._state = state


@cache
def _reversed(bits: int) -> Sequence[int]:
    """All numbers of so many bits, each with its bits the other way round."""
    numbers = [0]
    for _ in range(bits):
        numbers = [number << 1 for number in numbers] + [number << 1 | 1 for number in numbers]
    return numbers


@lru_cache(_REMEMBERED)
def frame_order(count: int, seed: int) -> FrameOrder:
    """That of a machine with `count` frames that booted with `seed`: the same each time, so it is computed once."""
    return FrameOrder(count, random.Random(f"frames {seed}"))  # noqa: S311
