"""What a host did in a sequence, and what it was told."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mh_emulator.kvm import KvmError
from mh_emulator.psp.command import Command
from mh_emulator.psp.status import CommandError, Status

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One command, `count` times; `status` is the firmware's, None where it was not asked."""

    command: str
    status: Status | None
    errno: str | None = None
    """By name, for an ioctl that failed."""
    count: int = 1

    @property
    def refused(self) -> bool:
        """Whether the host did not get what it wanted."""
        return self.errno is not None or self.status not in (None, Status.SUCCESS)

    @property
    def told(self) -> str:
        """What came back, as in `EIO, POLICY_FAILURE 0x07`."""
        status = "" if self.status is None else f"{self.status.name} {self.status:#04x}"
        return ", ".join(part for part in (self.errno, status) if part) or "done"

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        status = None if self.status is None else f"{self.status:#04x}"
        name = None if self.status is None else self.status.name
        return {
            "command": self.command,
            "status": status,
            "status_name": name,
            "errno": self.errno,
            "count": self.count,
        }


class Stopped(Exception):
    """A sequence that cannot go on: its last step was refused."""


class Log:
    """The steps of one sequence; the same step again and again is counted."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def do(self, command: str, call: Callable[[], T]) -> T:
        """Give a command: an ioctl of KVM, or one that only the firmware knows. Raises `Stopped` if it is refused."""
        try:
            result = call()
        except KvmError as error:
            self.note(Step(command, error.status, errno.errorcode[error.errno or 0]))
            raise Stopped from error
        except CommandError as error:
            self.note(Step(command, error.status))
            raise Stopped from error
        asked = command in Command.__members__ or command.startswith("KVM_SEV_")
        self.note(Step(command, Status.SUCCESS if asked else None))
        return result

    def attempt(self, command: str, call: Callable[[], object]) -> bool:
        """As `do`, for a command that is expected to be refused; return whether it was not."""
        try:
            self.do(command, call)
        except Stopped:
            return False
        return True

    def note(self, step: Step) -> None:
        """Add a step."""
        if self.steps and self.steps[-1] == replace(step, count=self.steps[-1].count):
            step = replace(step, count=self.steps.pop().count + 1)
        self.steps.append(step)
