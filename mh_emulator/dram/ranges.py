"""What lies behind a guest's physical addresses, as native code reads it: see `mh_emulator/cpu/fill.s`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import NamedTuple

from mh_builder.paging import PAGE_SHIFT
from mh_emulator.dram.process import FRAME_ENTRY_BYTES, UserMemory

MOST = 32
"""Further ranges are answered by Python alone; a VMM has a handful of slots."""


class Range(NamedTuple):
    """Guest-physical memory: `size` bytes at `gpa` are those of `memory` from `offset`."""

    gpa: int
    size: int
    memory: UserMemory
    offset: int


class NativeRange(ctypes.Structure):
    """A range; `frames` is the address of the entry of its first page in `UserMemory.frames_address`."""

    _fields_ = (("gpa", ctypes.c_uint64), ("size", ctypes.c_uint64), ("frames", ctypes.c_uint64))


class NativeRanges(ctypes.Structure):
    """The first ranges of a guest; they stay where they are, and change while the bus is held."""

    _fields_ = (("count", ctypes.c_uint64), ("ranges", NativeRange * MOST))
    count: int
    ranges: ctypes.Array[NativeRange]

    def show(self, ranges: Iterable[Range]) -> None:
        """Have these from now on."""
        self.count = 0
        for place, (gpa, size, memory, offset) in zip(self.ranges, ranges, strict=False):
            frames = memory.frames_address + (offset >> PAGE_SHIFT) * FRAME_ENTRY_BYTES
            place.gpa, place.size, place.frames = gpa, size, frames
            self.count += 1
