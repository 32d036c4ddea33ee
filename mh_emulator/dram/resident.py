"""Which frames this process has in its memory: those that were needed last; a large machine has the rest in a file."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from mh_builder.paging import MIB, PAGE_BYTES, PAGE_SHIFT
from mh_emulator.dram.backing import Backing

MOST_BYTES = 512 * MIB
"""Of the DRAM of one machine, that stay in memory; one that uses less never has a file."""

_PARTS = 8
"""One in so many frames goes at a time: before they go, every CPU that uses one forgets all its translations."""

_TOGETHER = 32
"""Frames that come back with one that is needed: who goes over memory needs them next."""


class Resident:
    """Which of `frames` frames are in `memory`, anonymous and private, in the order in which they came.

    Where the file cannot take a frame (no room, no folder for it), all stay in memory from then on.
    """

    def __init__(self, memory: mmap.mmap, frames: int) -> None:
        self.most = MOST_BYTES >> PAGE_SHIFT
        """As many may stay; more are there until somebody takes the bus anew."""
        self._memory = memory
        self._frames = frames
        self._order: deque[int] = deque()
        self._backing = Backing(frames)

    @property
    def is_over(self) -> bool:
        """Whether some have to go."""
        return len(self._order) > self.most

    def enter(self, frame: int) -> None:
        """A frame is in memory from now on."""
        self._order.append(frame)

    def take_oldest(self, pinned: Sequence[int]) -> list[int]:
        """Return those that have to go next, which count as gone; none for which `pinned` is not 0."""
        going: list[int] = []
        wanted = len(self._order) - (self.most - self.most // _PARTS)
        for _ in range(len(self._order)):
            if len(going) >= wanted:
                break
            frame = self._order.popleft()
            if pinned[frame]:
                self._order.append(frame)
            else:
                going.append(frame)
        return going

    def put(self, frames: Sequence[int]) -> Sequence[int]:
        """Write these, which nobody changes meanwhile, to the file; return those that it has."""
        try:
            done = self._backing.put(frames, self._pages(frames))
        except OSError:
            done = 0
        if done < len(frames):
            self._order.extend(frames[done:])
            self.most = self._frames
        return frames[:done]

    def drop(self, frames: Iterable[int]) -> None:
        """Free the memory of these, which reads as zeros then."""
        for frame in frames:
            self._memory.madvise(mmap.MADV_DONTNEED, frame << PAGE_SHIFT, PAGE_BYTES)

    def take_back(self, frame: int, is_gone: Callable[[int], bool]) -> Sequence[int]:
        """Have `frame` in memory again, and with it some that have gone after it; return all of them.

        Raises `BackingError`, and `OSError`.
        """
        frames = [frame, *takewhile(is_gone, self._backing.behind(frame, _TOGETHER - 1))]
        self._backing.read(frames, self._pages(frames))
        self._order.extend(frames)
        return frames

    def get(self, frame: int) -> bytes:
        """What one that has gone holds. Raises `BackingError`, and `OSError`."""
        page = bytearray(PAGE_BYTES)
        self._backing.read([frame], [memoryview(page)])
        return bytes(page)

    def _pages(self, frames: Iterable[int]) -> list[memoryview]:
        memory = memoryview(self._memory)
        return [memory[frame << PAGE_SHIFT : (frame + 1) << PAGE_SHIFT] for frame in frames]
