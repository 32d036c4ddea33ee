"""Which scheme to choose: what users may need, who meets it by what was executed, and what follows from that.

Nothing here knows a scheme. A scheme is for those who need what no other has, alone or together; it is for nobody
where another meets all that it does, and more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mh_compare.attacks import FAMILIES
from mh_compare.outcome import Verdict
from mh_compare.results import Comparison


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a user may want, and the rows that say whether a scheme has it."""

    text: str
    """After "you need"."""
    rows: tuple[str, ...]
    """Names of columns and attacks."""
    is_good: Callable[[str], bool]
    """Whether a cell's value, or an attack's outcome, is what is wanted."""


_ASKS = "guest-posts-request"
"""An attack by which a guest's kernel gets no memory of the helper's, but its time."""


def _fails(outcome: str) -> bool:
    return outcome != Verdict.SUCCEEDS.value


NEEDS = (
    Need("an SNP guest", ("sev-snp",), "yes".__eq__),
    Need("an SEV-ES guest", ("sev-es",), "yes".__eq__),
    Need(
        "a guest's kernel that cannot reach the helper's code and keys",
        (*(attack.name for attack in FAMILIES["guest OS"] if attack.name != _ASKS), "tenant-uses-key"),
        _fails,
    ),
    Need("a guest's kernel that cannot have the helper work for it", (_ASKS,), _fails),
    Need("moves of RAM that has no GPA", ("never-mapped", "unplugged"), "yes".__eq__),
    Need("helpers that may grow or move", ("upgrade-larger", "upgrade-moved"), "yes".__eq__),
    Need("all RAM left to the guest", ("reserved",), "nothing".__eq__),
    Need("a helper that firmware brings", ("brought-by",), lambda value: value.startswith("firmware")),
    Need("a start in 32-bit mode", ("start-32",), "yes".__eq__),
    Need("no memory slots but those of RAM", ("new-slots",), "0".__eq__),
    Need("a helper in pieces", ("pieces",), "yes".__eq__),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """Schemes that meet the same, and whom they are for."""

    layouts: tuple[str, ...]
    needs: tuple[tuple[Need, ...], ...]
    """Any of these sets, each of which no other scheme meets; none where another is better."""
    instead: tuple[str, ...] = ()
    """What is better."""
    differ: tuple[str, ...] = ()
    """Titles of the columns in which the schemes of one choice differ."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a comparison."""

    met: dict[str, frozenset[Need]]
    """Layout -> what it has of `needs`."""
    needs: tuple[Need, ...]
    """All that tell the layouts apart."""
    choices: tuple[Choice, ...]
    impossible: tuple[tuple[tuple[Need, ...], tuple[Need, ...]], ...]
    """No scheme meets any of the first together with any of the second."""

    def meeting(self, needs: Iterable[Need]) -> tuple[str, ...]:
        """The layouts that meet all of these."""
        wanted = frozenset(needs)
        return tuple(layout for layout, met in self.met.items() if wanted <= met)

    def as_json(self) -> dict[str, Any]:
        """Needs with the rows that they were read from, and choices."""
        return {
            "needs": [
                {"text": need.text, "rows": list(need.rows), "met_by": list(self.meeting([need]))}
                for need in self.needs
            ],
            "choices": [
                {
                    "layouts": list(choice.layouts),
                    "if_needed": [[need.text for need in needs] for needs in choice.needs],
                    "better": list(choice.instead),
                    "differ_in": list(choice.differ),
                }
                for choice in self.choices
            ],
            "no_scheme": [
                {"any_of": [need.text for need in some], "with_any_of": [need.text for need in others]}
                for some, others in self.impossible
            ],
        }


def decide(result: Comparison) -> Decision | None:
    """Which scheme to choose; None where fewer than two, or not all rows that decide, were compared."""
    if len(result.layouts) < 2 or not all(_is_known(need, result) for need in NEEDS):
        return None
    met = {layout: frozenset(need for need in NEEDS if _is_met(need, result, layout)) for layout in result.layouts}
    needs = tuple(need for need in NEEDS if 0 < sum(need in found for found in met.values()) < len(met))
    met = {layout: found & frozenset(needs) for layout, found in met.items()}
    best = {layout: found for layout, found in met.items() if not any(found < other for other in met.values())}
    groups = {found: tuple(name for name, other in met.items() if other == found) for found in met.values()}
    choices = [
        Choice(layouts, tuple(_alone(found, needs, best)), differ=tuple(_differences(result, layouts)))
        if layouts[0] in best
        else Choice(layouts, (), tuple(name for name, other in best.items() if found < other))
        for found, layouts in groups.items()
    ]
    ordered = sorted(choices, key=lambda choice: (not choice.needs, -len(met[choice.layouts[0]])))
    return Decision(met, needs, tuple(ordered), tuple(_impossible(needs, met)))


def _is_known(need: Need, result: Comparison) -> bool:
    names = {cell.column for cell in result.cells} | {attack.attack for attack in result.attacks}
    return names.issuperset(need.rows)


def _is_met(need: Need, result: Comparison, layout: str) -> bool:
    said = [cell.value for cell in result.cells if cell.layout == layout and cell.column in need.rows]
    said += [attack.outcome for attack in result.attacks if attack.layout == layout and attack.attack in need.rows]
    return all(map(need.is_good, said))


def _impossible(
    needs: tuple[Need, ...], met: dict[str, frozenset[Need]]
) -> Iterator[tuple[tuple[Need, ...], tuple[Need, ...]]]:
    """The pairs that no scheme meets, together where the same schemes meet their first."""
    where = {need: frozenset(layout for layout, found in met.items() if need in found) for need in needs}
    said: set[frozenset[Need]] = set()
    for layouts in dict.fromkeys(where.values()):
        some = tuple(need for need in needs if where[need] == layouts)
        others = tuple(need for need in needs if not where[need] & layouts and frozenset((some[0], need)) not in said)
        said |= {frozenset((one, other)) for one in some for other in others}
        if others:
            yield some, others


def _alone(
    found: frozenset[Need], needs: tuple[Need, ...], best: dict[str, frozenset[Need]]
) -> Iterator[tuple[Need, ...]]:
    """The smallest sets of needs that of the `best` only those meet which meet `found`."""
    smaller: list[frozenset[Need]] = []
    mine = [need for need in needs if need in found]
    for size in range(1, len(mine) + 1):
        for wanted in combinations(mine, size):
            if any(done <= set(wanted) for done in smaller):
                continue
            if all(other == found for other in best.values() if set(wanted) <= other):
                smaller.append(frozenset(wanted))
                yield wanted


def _differences(result: Comparison, layouts: tuple[str, ...]) -> Iterator[str]:
    """Titles of the columns in which these are not alike."""
    if len(layouts) > 1:
        for column in dict.fromkeys(cell.column for cell in result.cells):
            cells = [cell for cell in result.cells if cell.column == column and cell.layout in layouts]
            if len({cell.value for cell in cells}) > 1:
                yield cells[0].title
