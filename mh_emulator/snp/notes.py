"""What a case was told: every command, instruction, message and access of it, and how it ended."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from mh_builder.parts import Part
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.psp.status import CommandError
from mh_emulator.rmp.fault import Fault
from mh_emulator.rmp.instructions import Code, Result
from mh_emulator.snp.channel import Mailbox


class Outcome(Enum):
    """How a case ended."""

    WORKS = "works"
    REFUSED = "refused"
    DETECTED = "detected"
    """It happened, and who has to know was told."""
    SUCCEEDS = "succeeds"
    """An attack, or what a helper has to prevent because the firmware does not."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command, instruction, message or access, `count` times."""

    command: str
    status: int
    name: str
    count: int = 1

    @property
    def refused(self) -> bool:
        """Whether it did not do what was asked."""
        return self.name not in ("SUCCESS", "CF")

    @property
    def told(self) -> str:
        """As in `POLICY_FAILURE 0x07`."""
        return f"{self.name} {self.status:#04x}"

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {"command": self.command, "status": f"{self.status:#04x}", "status_name": self.name, "count": self.count}


class Notes:
    """The steps of one case on one part."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.steps: list[Step] = []

    def attempt(self, call: Callable[[], object]) -> bool:
        """Whether the command of `call` was not refused."""
        try:
            call()
        except CommandError:
            return False
        return True

    def ask(self, channel: Mailbox, kind: MessageType, payload: bytes) -> bytes:
        """A guest's message and the answer, whose status is a step. Raises `CommandError`."""
        told, answer = channel.ask(kind, payload)
        self.note(Step(f"MSG_{kind.name}", told, told.name))
        return answer

    def export(self, channel: Mailbox, gctx: int, imi_en: int) -> bytes:
        """EXPORT; the context that comes back, all zero where it is refused."""
        answer = self.ask(channel, MessageType.EXPORT_REQ, struct.pack("<QII", gctx, imi_en, 0))
        return answer[0x20:0x320]

    def bring(self, channel: Mailbox, kind: MessageType, gctx: int, blob: bytes) -> None:
        """IMPORT, ABSORB, or ABSORB_NOMA with a `gctx` of 0."""
        self.ask(channel, kind, struct.pack("<QII16x", gctx, len(blob), 3) + blob)

    def instruction(self, name: str, told: Code | Result | Fault) -> None:
        """Note what an instruction came to."""
        if isinstance(told, Fault):
            self.access(name, told)
        elif isinstance(told, Result):
            self.note(Step(name, told.code, "CF" if told.carry else told.code.name))
        else:
            self.note(Step(name, told, told.name))

    def access(self, name: str, fault: Fault | None) -> None:
        """Note what an access came to."""
        self.note(Step(name, 0, "SUCCESS") if fault is None else Step(name, fault.code, fault.trap.value))

    def found(self, name: str, problem: str = "") -> Outcome:
        """Note what somebody found who looked; a problem is a detection, none is a success of whoever tried."""
        self.note(Step(name, int(bool(problem)), problem or "SUCCESS"))
        return Outcome.DETECTED if problem else Outcome.SUCCEEDS

    def note(self, step: Step) -> None:
        """Add a step; the same one again and again is counted."""
        if self.steps and self.steps[-1] == replace(step, count=self.steps[-1].count):
            step = replace(step, count=self.steps.pop().count + 1)
        self.steps.append(step)

    def last(self) -> Outcome:
        """What the last step came to."""
        return Outcome.REFUSED if self.steps[-1].refused else Outcome.WORKS
