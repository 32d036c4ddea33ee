"""In which order a machine hands out its frames."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from functools import lru_cache
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
        mask = (1 << self._bits) - 1
        while len(self._known) < end:
            number = self._scatter(self._state)
            self._state = (self._state * self._factor + self._increment) & mask
            if number < self._count:
                self._known.append(number)

    def _scatter(self, state: int) -> int:
        # The low bits of such a generator alternate; reversing all bits moves that to the top.
        return int(f"{state:0{self._bits}b}"[::-1], 2)


@lru_cache(_REMEMBERED)
def frame_order(count: int, seed: int) -> FrameOrder:
    """That of a machine with `count` frames that booted with `seed`: the same each time, so it is computed once."""
    return FrameOrder(count, random.Random(f"frames {seed}"))  # noqa: S311
