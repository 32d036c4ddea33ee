"""The loop of a fuzzer: change an input, run it, keep it if it has reached something new."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from emulator_tests.fuzz.mutators import mutated
from emulator_tests.fuzz.runner import Outcome, Runner
from emulator_tests.fuzz.script import FAMILIES, Script, loads
from emulator_tests.fuzz.seeds import SEEDS

_FEW = 20
"""Of the oldest inputs, which were made with care, and of the newest: a third of the time one of them is changed."""


@dataclass
class Loop:
    """One process's loop; `source` decides all that it does."""

    runner: Runner
    source: random.Random
    inputs: int = 0
    """Run so far."""
    corpus: list[Script] = field(default_factory=list)
    violations: dict[str, tuple[Script, str]] = field(default_factory=dict)
    """By what they have in common, the shortest script that was found for each, and what it violates."""
    _seen: dict[str, int] = field(default_factory=dict)
    """Of each code, all counts so far."""

    def begin(self, inputs: Iterable[bytes] = (), seeds: Iterable[Script] = SEEDS) -> None:
        """Run these seeds and inputs."""
        for script in (*seeds, *map(loads, inputs)):
            self.run(script)

    def run(self, script: Script) -> bool:
        """Run a script; return whether it is worth keeping: it has reached something, or something more often."""
        outcome = self.runner.run(script)
        self.inputs += 1
        if outcome.violation is not None:
            self._violates(script, outcome.violation)
            return False
        counts = int.from_bytes(outcome.counts, "little")
        seen = self._seen.get(outcome.code, 0)
        if counts & ~seen == 0:
            return False
        self._seen[outcome.code] = seen | counts
        self.corpus.append(script)
        return True

    def step(self) -> Script | None:
        """Change one input and run it; return what is worth keeping. Every family of stages has its turn."""
        family = self.source.choice(sorted({FAMILIES[script.stage] for script in self.corpus}))
        every = [script for script in self.corpus if FAMILIES[script.stage] == family]
        among = self.source.choice((every[:_FEW], every, every[-_FEW:]))
        script = mutated(self.source, self.source.choice(among), every)
        return script if self.run(script) else None

    @property
    def reached(self) -> int:
        """How many edges and answers there were."""
        every = [seen.to_bytes((seen.bit_length() + 7) // 8, "little") for seen in self._seen.values()]
        return sum(len(seen) - seen.count(0) for seen in every)

    def _violates(self, script: Script, violation: str) -> None:
        kind = kind_of(violation)
        if kind not in self.violations:
            self.violations[kind] = shortened(self.runner, script, violation)


def kind_of(violation: str) -> str:
    """What violations of one kind have in common: all but numbers."""
    return re.sub(r"\b(0x[0-9a-f]+|\d+)\b", "#", violation)


def shortened(runner: Runner, script: Script, violation: str) -> tuple[Script, str]:
    """A script of the same violation of which no step can be left out, and the violation."""
    number = 0
    while number < len(script.steps):
        shorter = Script(script.stage, script.steps[:number] + script.steps[number + 1 :])
        outcome: Outcome = runner.run(shorter)
        if outcome.violation is not None and kind_of(outcome.violation) == kind_of(violation):
            script, violation = shorter, outcome.violation
        else:
            number += 1
    return script, violation
