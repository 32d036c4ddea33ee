"""Attacks that need neither KVM nor a helper: the cases of `build.py snp` have them."""

from __future__ import annotations

from collections.abc import Callable

from mh_compare.outcome import Outcome, detected, refused, succeeds
from mh_compare.snp_arena import SnpArena
from mh_compare.trace import tell
from mh_emulator.snp.notes import Outcome as End
from mh_emulator.snp.run import play

_VERDICTS = {End.REFUSED: refused, End.DETECTED: detected, End.SUCCEEDS: succeeds, End.WORKS: succeeds}
"""What the ABI offers to everybody an attacker has as well."""


def by_case(name: str) -> Callable[[SnpArena], Outcome]:
    """The attack that the case of that name is."""

    def run(arena: SnpArena) -> Outcome:
        case = play(name, arena.part)
        for step in case.steps:
            tell(f"{name}, {step.command}: {step.told}")
        last = case.steps[-1]
        return _VERDICTS[case.outcome](f"{last.command}: {last.told}")

    return run
