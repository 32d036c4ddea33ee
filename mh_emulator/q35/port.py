"""A device at ports."""

from __future__ import annotations

from typing import Protocol


class PortDevice(Protocol):
    """What answers at some ports; values have as many bytes as the access."""

    def read(self, port: int, size: int) -> int:
        """IN."""

    def write(self, port: int, size: int, value: int) -> None:
        """OUT."""


def ones(size: int) -> int:
    """What is read where nothing is."""
    return (1 << 8 * size) - 1
