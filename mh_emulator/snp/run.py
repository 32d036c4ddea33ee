"""All cases on some parts, and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mh_builder.parts import Part
from mh_emulator.snp.cases.launch import LAUNCH
from mh_emulator.snp.cases.messages import MESSAGES
from mh_emulator.snp.cases.moves import MOVES
from mh_emulator.snp.cases.pages import PAGES
from mh_emulator.snp.cases.rmp import RMP
from mh_emulator.snp.kvm.attacks import ATTACKS
from mh_emulator.snp.kvm.stage import KvmStage
from mh_emulator.snp.notes import Outcome, Step
from mh_emulator.snp.stage import Stage

_WITHOUT_VCPUS: Mapping[str, Callable[[Stage], Outcome]] = {**LAUNCH, **PAGES, **MESSAGES, **MOVES, **RMP}
CASES: Mapping[str, Callable[..., Outcome]] = MappingProxyType({**_WITHOUT_VCPUS, **ATTACKS})
"""By id; what a case is about is its docstring."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case on one part."""

    id: str
    part: str
    what: str
    steps: tuple[Step, ...]
    outcome: Outcome

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {
            "id": self.id,
            "part": self.part,
            "what": self.what,
            "steps": [step.as_json() for step in self.steps],
            "outcome": self.outcome.value,
        }


def play(name: str, part: Part) -> Case:
    """Play one case. Raises `ValueError` for a part without SEV-SNP."""
    stage = KvmStage(part) if name in ATTACKS else Stage(part)
    outcome = CASES[name](stage)
    return Case(name, part.name, CASES[name].__doc__ or "", tuple(stage.steps), outcome)


def run(parts: Sequence[Part]) -> tuple[Case, ...]:
    """Play every case on these parts."""
    return tuple(play(name, part) for part in parts for name in CASES)
