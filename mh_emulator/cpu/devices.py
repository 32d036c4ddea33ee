"""What a vCPU finds at ports and at guest-physical addresses without a slot."""

from __future__ import annotations

from typing import Protocol


class Devices(Protocol):
    """Devices of a guest that answer at once: a model of one vCPU, which runs while no other does."""

    def read_port(self, port: int, size: int) -> int:
        """IN of `size` bytes."""

    def write_port(self, port: int, size: int, value: int) -> None:
        """OUT."""

    def read_memory(self, gpa: int, size: int) -> int:
        """A load of `size` bytes."""

    def write_memory(self, gpa: int, size: int, value: int) -> None:
        """A store."""

    def count(self) -> int:
        """RDTSC."""
