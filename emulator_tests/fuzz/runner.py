"""Runs inputs on stages that are kept, and says what each has reached."""

from __future__ import annotations

import hashlib
import traceback
from dataclasses import dataclass

from emulator_tests.fuzz.file_player import FilePlayer, FileStage
from emulator_tests.fuzz.player import Player
from emulator_tests.fuzz.script import FAMILIES, Script
from emulator_tests.fuzz.stage import Stage, Violation
from emulator_tests.fuzz.subjects import subject

_BUCKETS = bytes(1 << sum(count >= low for low in (2, 3, 4, 8, 16, 32, 128)) if count else 0 for count in range(256))
"""For each count of an edge a bit, the same for counts that tell nothing new; the buckets are AFL's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one input has done."""

    code: str
    """Which code's edges these are: builds for plain SEV have as good as the same."""
    counts: bytes
    """For each edge, and each answer in a phase, or for each pair of lines: a bit for how often it was, or none."""
    violation: str | None
    """What did not hold; None if all did."""

    @property
    def reached(self) -> frozenset[tuple[str, int]]:
        """The edges and answers that were there at all."""
        return frozenset((self.code, number) for number, count in enumerate(self.counts) if count)

    @property
    def digest(self) -> str:
        """Of code and counts: the same input has the same one."""
        return hashlib.sha256(self.code.encode() + self.counts).hexdigest()


class Runner:
    """Stages, each made when it is first needed."""

    def __init__(self) -> None:
        self._stages: dict[str, Stage | FileStage] = {}

    def stage(self, name: str) -> Stage | FileStage:
        """A stage as its scripts begin."""
        if name not in self._stages:
            self._stages[name] = FileStage(name, subject(name)) if FAMILIES[name] == "file" else Stage(name)
        self._stages[name].reset()
        return self._stages[name]

    def run(self, script: Script) -> Outcome:
        """Play a script. What raises anything costs the stage, of which nobody knows how it is then."""
        stage = self.stage(script.stage)
        player = FilePlayer(stage) if isinstance(stage, FileStage) else Player(stage)
        violation = None
        try:
            player.play(script)
        except Violation as found:
            violation = str(found)
        except Exception as error:  # noqa: BLE001 - whatever it is, this input did it
            frame = traceback.extract_tb(error.__traceback__)[-1]
            violation = f"{type(error).__name__}: {error} ({frame.name})"
        if violation is not None:
            del self._stages[script.stage]
        return Outcome(stage.code, player.counts.translate(_BUCKETS), violation)
