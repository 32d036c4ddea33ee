"""Attack results as rows of a table: one for an attack that ends alike in plain SEV and under SEV-ES, else one each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from mh_builder.schemes.space import Start
from mh_compare.results import AttackResult

_NAMES = {Start.HOST.value: "SEV", Start.ES.value: "SEV-ES"}
_BOTH = "both"


@dataclass(frozen=True, slots=True)
class Row:
    """One attack; a cell has what stands for one layout: a result, or two with the same outcome."""

    title: str
    start: str
    """`SEV`, `SEV-ES` or `both`."""
    cells: tuple[tuple[AttackResult, ...], ...]

    @property
    def results(self) -> list[AttackResult]:
        """One for each layout."""
        return [cell[0] for cell in self.cells]


def families(attacks: Sequence[AttackResult]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each family, in the order of the results."""
    for family, results in groupby(attacks, key=lambda result: result.family):
        by_attack = groupby(results, key=lambda result: result.attack)
        yield family, [row for _, found in by_attack for row in _rows(list(found))]


def name(result: AttackResult) -> str:
    """Where it was tried, in words."""
    return f"{result.layout}, {_NAMES[result.start]}"


def places(results: Sequence[AttackResult]) -> str:
    """Where these were tried, in words: layouts, and with them the start unless it makes no difference."""
    by_start = _by_start(results)
    layouts = {start: ", ".join(result.layout for result in found) for start, found in by_start.items()}
    if len(layouts) == len(_NAMES) and len(set(layouts.values())) == 1:
        return next(iter(layouts.values()))
    return "; ".join(f"{_NAMES[start]}: {names}" for start, names in layouts.items())


def _rows(results: list[AttackResult]) -> Iterator[Row]:
    """Rows of one attack."""
    by_start = _by_start(results)
    outcomes = {tuple((one.layout, one.outcome) for one in found) for found in by_start.values()}
    if len(by_start) > 1 and len(outcomes) == 1:
        yield Row(results[0].title, _BOTH, tuple(zip(*by_start.values(), strict=True)))
        return
    for start, found in by_start.items():
        yield Row(results[0].title, _NAMES[start], tuple((one,) for one in found))


def _by_start(results: Sequence[AttackResult]) -> dict[str, list[AttackResult]]:
    return {
        start: [result for result in results if result.start == start]
        for start in dict.fromkeys(result.start for result in results)
    }
