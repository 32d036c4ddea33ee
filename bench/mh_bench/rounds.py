"""Contestants that take turns, round after round, and what their times say of each other."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

ROUNDS = 41


class Spread(NamedTuple):
    """The smallest, the middle and the largest of the rounds."""

    low: float
    middle: float
    high: float


class Rounds:
    """Contestants by name, and the nanoseconds for one step of each in every round."""

    def __init__(self) -> None:
        self._contestants: dict[str, Callable[[], float]] = {}
        self._times: dict[str, list[float]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._times

    def add(self, name: str, measure: Callable[[], float]) -> None:
        """Let one take part."""
        self._contestants[name] = measure
        self._times[name] = []

    def go(self) -> None:
        """Measure all; the first round warms up."""
        for number in range(ROUNDS + 1):
            for name, measure in self._contestants.items():
                elapsed = measure()
                if number:
                    self._times[name].append(elapsed)

    def time(self, name: str) -> float:
        """The median of a contestant."""
        return median(self._times[name])

    def ratios(self, mine: str, *theirs: str) -> Spread:
        """How many times longer all of `theirs`, one after the other, take than `mine`, within a round."""
        sums = [sum(parts) for parts in zip(*(self._times[name] for name in theirs), strict=True)]
        found = [total / own for total, own in zip(sums, self._times[mine], strict=True)]
        return Spread(min(found), median(found), max(found))
