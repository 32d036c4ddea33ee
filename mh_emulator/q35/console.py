"""What a guest prints: bytes that become lines."""

from __future__ import annotations

from collections.abc import Callable

LIMIT = 1 << 20
"""Bytes that are kept; a guest that prints for ever does not fill memory."""


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
