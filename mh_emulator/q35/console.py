"""What a guest prints: bytes that become lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

LIMIT = 1 << 20
"""Bytes that are kept; a guest that prints for ever does not fill memory."""


class ConsoleState(NamedTuple):
    """What was printed, up to the limit, what of it is no whole line yet, and how many bytes that is in all."""

    data: bytes
    line: bytes
    printed: int


class Console:
    """Text of one device; `on_line` is called with each whole line."""

    def __init__(self, on_line: Callable[[str], None] = lambda _line: None) -> None:
        self._data = bytearray()
        self._line = bytearray()
        self._on_line = on_line
        self.printed = 0
        """All bytes ever, beyond the limit too."""

    @property
    def text(self) -> str:
        """All that was printed, up to the limit."""
        return self._data.decode("latin-1")

    @property
    def lines(self) -> list[str]:
        """The whole lines in that."""
        return [line.rstrip("\r") for line in self.text.split("\n")[:-1]]

    @property
    def state(self) -> ConsoleState:
        """All of it."""
        return ConsoleState(bytes(self._data), bytes(self._line), self.printed)

    def restore(self, state: ConsoleState) -> None:
        """Have printed that; nobody is told of its lines. `ValueError` for more than is kept."""
        if max(len(state.data), len(state.line)) > LIMIT or state.printed < len(state.data):
            raise ValueError(f"console: {len(state.data):#x} bytes of {state.printed:#x}, at most {LIMIT:#x} are kept")
        self._data, self._line, self.printed = bytearray(state.data), bytearray(state.line), state.printed

    def put(self, byte: int) -> None:
        """Print a byte."""
        self.printed += 1
        if len(self._data) < LIMIT:
            self._data.append(byte)
        if byte == ord("\n"):
            line, self._line = self._line.decode("latin-1").rstrip("\r"), bytearray()
            self._on_line(line)
        elif len(self._line) < LIMIT:
            self._line.append(byte)
