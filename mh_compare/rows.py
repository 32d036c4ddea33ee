"""Results as rows of a table: what tells the schemes apart, and what is the same under all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

from mh_builder.schemes.space import MIRROR_STARTS, Start
from mh_compare.results import AttackResult, Cell

NAMES = {Start.HOST.value: "SEV", Start.ES.value: "SEV-ES", Start.SNP.value: "SNP"}
"""Start -> what readers call such a guest."""

_BOTH = "both"


class Comparable(Protocol):
    """A row."""

    @property
    def is_same(self) -> bool:
        """Whether it says of every scheme the same."""


AnyRow = TypeVar("AnyRow", bound=Comparable)


@dataclass(frozen=True, slots=True)
class CellRow:
    """One column of the comparison: a cell for each layout."""

    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        """What is asked."""
        return self.cells[0].title

    @property
    def is_same(self) -> bool:
        """Whether all schemes answer alike; of one alone there is nothing to say."""
        return len(self.cells) > 1 and len({cell.value for cell in self.cells}) == 1


@dataclass(frozen=True, slots=True)
class Row:
    """One attack; a cell has what stands for one layout: a result, or two with the same outcome."""

    start: str
    """`SEV`, `SEV-ES`, `both` or `SNP`."""
    cells: tuple[tuple[AttackResult, ...], ...]

    @property
    def attack(self) -> str:
        """Its name."""
        return self.cells[0][0].attack

    @property
    def title(self) -> str:
        """Who does what."""
        return self.cells[0][0].title

    @property
    def part(self) -> str:
        """The processor on which it was carried out."""
        return self.cells[0][0].part

    @property
    def results(self) -> list[AttackResult]:
        """One for each layout."""
        return [cell[0] for cell in self.cells]

    @property
    def is_same(self) -> bool:
        """Whether it ends alike under all schemes; of one alone there is nothing to say."""
        return len(self.cells) > 1 and len({result.outcome for result in self.results}) == 1


def cell_rows(cells: Iterable[Cell]) -> list[CellRow]:
    """A row for each column, in the order of the cells."""
    return [CellRow(tuple(found)) for _, found in groupby(cells, key=lambda cell: cell.column)]


def families(attacks: Sequence[AttackResult]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each family, in the order of the results."""
    for family, results in groupby(attacks, key=lambda result: result.family):
        by_attack = groupby(results, key=lambda result: result.attack)
        yield family, [row for _, found in by_attack for row in _rows(list(found))]


def apart(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """The rows that tell the schemes apart."""
    return [row for row in rows if not row.is_same]


def alike(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """The rows that say of all schemes the same."""
    return [row for row in rows if row.is_same]


def headline(text: str) -> str:
    """`text` with a capital."""
    return text[:1].upper() + text[1:]


def name(result: AttackResult) -> str:
    """Where it was tried, in words."""
    return f"{result.layout}, {NAMES[result.start]}"


def places(results: Sequence[AttackResult]) -> str:
    """Where these were tried, in words: layouts, and with them the start unless it makes no difference."""
    by_start = _by_start(results)
    layouts = {start: ", ".join(result.layout for result in found) for start, found in by_start.items()}
    mirrors = [layouts.get(start.value, "") for start in MIRROR_STARTS]
    said = [f"{NAMES[start]}: {names}" for start, names in layouts.items()]
    if all(mirrors) and len(set(mirrors)) == 1:
        said = [mirrors[0], *said[len(mirrors) :]]
    return "; ".join(said)


def reasons(attacks: Sequence[AttackResult]) -> dict[str, list[tuple[str, str, str]]]:
    """Why attacks succeed, and for each reason (name, title, places) of those that do for it."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for attack in {result.attack: result for result in attacks if result.why}.values():
        where = places([result for result in attacks if result.attack == attack.attack and result.why])
        found.setdefault(attack.why, []).append((attack.attack, attack.title, where))
    return found


def _rows(results: list[AttackResult]) -> Iterator[Row]:
    """Rows of one attack."""
    by_start = _by_start(results)
    mirrors = [found for start, found in by_start.items() if start != Start.SNP.value]
    outcomes = {tuple((one.layout, one.outcome) for one in found) for found in mirrors}
    if len(mirrors) > 1 and len(outcomes) == 1:
        yield Row(_BOTH, tuple(zip(*mirrors, strict=True)))
        by_start = {start: found for start, found in by_start.items() if start == Start.SNP.value}
    for start, found in by_start.items():
        yield Row(NAMES[start], tuple((one,) for one in found))


def _by_start(results: Sequence[AttackResult]) -> dict[str, list[AttackResult]]:
    return {
        start: [result for result in results if result.start == start]
        for start in dict.fromkeys(result.start for result in results)
    }
