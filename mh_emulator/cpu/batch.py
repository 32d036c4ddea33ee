"""Many registers of an engine, read or written in one call: a tenth of the time of unicorn's own way through Python."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from unicorn.unicorn_py3.unicorn import uclib

Handle: TypeAlias = Any
"""Of an engine of unicorn, which comes without types."""

_WORD = 8
_HALF_BITS = 8 * _WORD


class Batch:
    """The registers `numbers`, of at most `quadwords` times 8 bytes each, of the engine `handle`."""

    def __init__(self, handle: Handle, numbers: Sequence[int], quadwords: int = 1) -> None:
        count = len(numbers)
        self._handle = handle
        self._count = count
        self._values = (ctypes.c_uint64 * (count * quadwords))()
        self._all = struct.Struct(f"={count * quadwords}Q")
        start = ctypes.addressof(self._values)
        self._numbers = (ctypes.c_int * count)(*numbers)
        self._places = (ctypes.c_void_p * count)(*(start + _WORD * quadwords * n for n in range(count)))

    @property
    def arguments(self) -> tuple[int, int, int]:
        """Addresses of the numbers, of the places for the values, and of the first value; valid as long as this is."""
        return ctypes.addressof(self._numbers), ctypes.addressof(self._places), ctypes.addressof(self._values)

    def read(self) -> list[int]:
        """Their quadwords, the low one first."""
        uclib.uc_reg_read_batch(self._handle, self._numbers, self._places, self._count)
        return list(self._values)

    def write(self, values: Iterable[int]) -> None:
        """Write them, in the order of `read`."""
        self._all.pack_into(self._values, 0, *values)
        uclib.uc_reg_write_batch(self._handle, self._numbers, self._places, self._count)


class WideBatch:
    """Registers of more than 8 bytes, and at most 16."""

    def __init__(self, handle: Handle, numbers: Sequence[int]) -> None:
        self._halves = Batch(handle, numbers, quadwords=2)

    def read(self) -> tuple[int, ...]:
        """Their values."""
        halves = self._halves.read()
        return tuple(low | high << _HALF_BITS for low, high in zip(halves[::2], halves[1::2], strict=True))

    def write(self, values: Iterable[int]) -> None:
        """Write them."""
        self._halves.write(half for value in values for half in (value % (1 << _HALF_BITS), value >> _HALF_BITS))
