"""A file for frames that are not in this process's memory: nobody else can open it, and it ends with the process.

It has what DRAM has, plaintext of the emulated guest too where a frame is held so.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import IO
from weakref import finalize

from mh_abi.errors import MigrationHelperError
from mh_builder.paging import PAGE_BYTES

_AT_ONCE = 1024
"""Pieces of memory that one system call takes: Linux, UIO_MAXIOV."""

_NONE = (1 << 32) - 1


class BackingError(MigrationHelperError):
    """The file does not have what was put into it; the message says which frame."""


class Backing:
    """Room for `frames` frames; each gets a page of the file when it is first put there, and keeps it.

    The file is made with the first of them, in the folder for temporary files (TMPDIR). A process that is forked has
    the same file: only one of the two may go on.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._file: IO[bytes] | None = None
        self._places = array("I")
        """For each frame its page in the file, or `_NONE`."""
        self._at = array("I")
        """For each page of the file its frame."""

    def put(self, frames: Sequence[int], pages: Sequence[memoryview]) -> int:
        """Have the file hold the pages of these frames; return how many of them, from the first, it does.

        `OSError` where that is none.
        """
        file = self._open()
        done = 0
        try:
            for start, end in _runs([self._place(frame) for frame in frames]):
                written = os.pwritev(file.fileno(), pages[start:end], self._places[frames[start]] * PAGE_BYTES)
                done += written // PAGE_BYTES
                if written != (end - start) * PAGE_BYTES:
                    break
        except OSError:
            if not done:
                raise
        return done

    def behind(self, frame: int, count: int) -> Sequence[int]:
        """Which frames have the next pages of the file, up to `count`."""
        place = self._places[frame]
        return self._at[place + 1 : place + 1 + count]

    def read(self, frames: Sequence[int], pages: Sequence[memoryview]) -> None:
        """Put into `pages` what the file holds of `frames`, whose pages of the file lie side by side, up to 1024.

        Raises `BackingError`, and `OSError`.
        """
        done = os.preadv(self._open().fileno(), pages, self._places[frames[0]] * PAGE_BYTES)
        if done != len(frames) * PAGE_BYTES:
            number, left = divmod(done, PAGE_BYTES)
            raise BackingError(
                f"DRAM: {left:#x} bytes of frame {frames[number]:#x} are in its file, not {PAGE_BYTES:#x}"
            )

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as this is
            finalize(self, self._file.close)
            self._places = array("I", [_NONE]) * self._frames
        return self._file

    def _place(self, frame: int) -> int:
        place = self._places[frame]
        if place == _NONE:
            place = self._places[frame] = len(self._at)
            self._at.append(frame)
        return place


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Where runs of neighbours begin and end in `places`, none longer than `_AT_ONCE`."""
    starts = [n for n, place in enumerate(places) if not n or place != places[n - 1] + 1]
    cuts = [cut for start, end in pairwise([*starts, len(places)]) for cut in range(start, end, _AT_ONCE)]
    return list(pairwise([*cuts, len(places)]))
