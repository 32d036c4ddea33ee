"""Which lines of our readers run after which, as Python tells: what guides the changes of files."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import mh_abi
import mh_builder
import mh_emulator.attest

_WATCHED = tuple(str(package.__path__[0]) for package in (mh_abi, mh_builder, mh_emulator.attest))
_SLOTS = 1 << 14
_MOST = 255


class Lines:
    """Pairs of lines, each in one of few slots: the same whatever else this process has done."""

    def __init__(self) -> None:
        self.counts = bytearray(_SLOTS)
        self._starts: dict[CodeType, int | None] = {}
        self._last = 0

    def clear(self) -> None:
        """Count from 0."""
        self.counts[:] = bytes(_SLOTS)
        self._last = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what runs meanwhile."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        if code not in self._starts:
            path = code.co_filename
            package = next((folder for folder in _WATCHED if path.startswith(folder)), None)
            name = None if package is None else path.removeprefix(package)
            self._starts[code] = None if name is None else zlib.crc32(name.encode())
        return None if self._starts[code] is None else self._line

    def _line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            here = (self._starts[frame.f_code] or 0) + frame.f_lineno * 0x9E37
            slot = (here ^ self._last) % _SLOTS
            self.counts[slot] = min(self.counts[slot] + 1, _MOST)
            self._last = here >> 1
        return self._line
