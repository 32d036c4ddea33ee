"""The guest's registers while KVM emulates one of its instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mh_emulator.cpu.core import Core
from mh_emulator.cpu.eventinj import EventInjection, Kind
from mh_emulator.cpu.mmu import VECTOR_GP


class Frame(Protocol):
    """What an emulated instruction reads and changes."""

    @property
    def privilege(self) -> int:
        """CPL."""

    def read(self, name: str) -> int:
        """A register by name."""

    def write(self, name: str, value: int) -> None:
        """Set a register by name."""

    def done(self) -> None:
        """The instruction has been executed."""

    def fault(self) -> None:
        """The instruction raises #GP."""


class PlainFrame:
    """The frame of a vCPU whose registers the host sees: the CPU's, stopped at an instruction of `length` bytes."""

    def __init__(self, core: Core, length: int, inject: Callable[[EventInjection], None]) -> None:
        self._core = core
        self._length = length
        self._inject = inject

    @property
    def privilege(self) -> int:
        """CPL."""
        return self._core.privilege

    def read(self, name: str) -> int:
        """A register by name."""
        return self._core.read(name)

    def write(self, name: str, value: int) -> None:
        """Set a register by name."""
        self._core.write(name, value)

    def done(self) -> None:
        """Move RIP behind the instruction."""
        self._core.skip(self._length)

    def fault(self) -> None:
        """Let #GP wait for the next VMRUN."""
        self._inject(EventInjection(Kind.EXCEPTION, VECTOR_GP, 0))
