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

    def vector(self) -> int | None:
        """That of the interrupt which waits for the vCPU, if there is one."""

    def acknowledge(self) -> None:
        """The vCPU has taken it."""

    def sleep(self) -> bool:
        """HLT: let time pass until an interrupt waits; False where it stays idle."""
