"""In which order tests are tried against a fault: a fault that is noticed soon costs little."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from types import MappingProxyType

from emulator_tests.coverage.blobs import RECORDED, blob
from emulator_tests.mutation.mutants import Mutant
from emulator_tests.mutation.record import Run

_FIRST = 8
"""Tests that noticed most faults of the same source, which come before all others."""
_LIKELY = 6
"""Tests that run the rarest code near the fault, so the most of what depends on it."""
_AHEAD = 6
"""Cases of the functions of both that come before the first case of any other."""
_NEAR = 8
"""Instructions before and behind the fault, and behind where it jumps to."""
_SOON = 3
"""Instructions from a comparison to the jump that asks for it."""

Place = tuple[str, int]
"""Blob, and instruction of it by number."""
Step = tuple[str, int, str]
"""What a test does at a place: it runs the instruction, jumps there, or goes on behind a jump."""


def order(tests: Mapping[str, Run], mutant: Mutant, noticed: Mapping[str, int] = MappingProxyType({})) -> list[str]:
    """The tests that the fault can make a difference to: those that noticed most faults of its source come first.

    Then more cases of those, and of tests that do what few others do at the fault's jump, and near it; the first case
    of every test, the second of each, and so on.
    """
    places = _places().get((mutant.place, mutant.count), [])
    reaching = _reaching(tests, mutant, places)
    at = _rarity(tests, reaching, ((name, _decides(name, one)) for name, one in places))
    near = _rarity(tests, reaching, (one for place in places for one in _near(*place)))
    rarity = {test: (at[test], near[test]) for test in reaching}
    ordered = sorted(rarity, key=lambda test: (rarity[test], tests[test].seconds, test))
    best = sorted(noticed.keys() & rarity.keys(), key=lambda test: (-noticed[test], test))[:_FIRST]
    likely = {_function(test) for test in (*best, *ordered[:_LIKELY])}
    ranks: dict[str, int] = {}
    cases: Counter[str] = Counter()
    for test in ordered:
        function = _function(test)
        ranks[test] = cases[function] - _AHEAD * (function in likely)
        cases[function] += 1
    ranks |= dict.fromkeys(best, -_AHEAD - 1)
    return sorted(ranks, key=lambda test: (ranks[test], rarity[test], tests[test].seconds, test))


def _function(test: str) -> str:
    return test.partition("[")[0]


def _reaching(tests: Mapping[str, Run], mutant: Mutant, places: Collection[Place]) -> list[str]:
    """Tests that run its instruction; where a jump is dropped, that jump there."""
    wanted = _masks(places)
    jumps = mutant.kind == "dropped" and any(blob(name).instructions[one].target is not None for name, one in places)
    return [
        test
        for test, run in tests.items()
        if any((seen.taken if jumps else seen.ran) & wanted.get(name, 0) for name, seen in run.seen.items())
    ]


def _rarity(tests: Mapping[str, Run], reaching: Iterable[str], places: Iterable[Place]) -> dict[str, int]:
    """For each of these tests: how many do the rarest that it does at one of these places, in bits."""
    wanted = _masks(places)
    done = {test: list(_steps(tests[test], wanted)) for test in reaching}
    many = Counter(chain.from_iterable(done.values()))
    return {test: min((many[step] for step in steps), default=len(done)).bit_length() for test, steps in done.items()}


def _steps(run: Run, wanted: Mapping[str, int]) -> Iterator[Step]:
    for name, seen in run.seen.items():
        for what, mask in (("runs", seen.ran), ("falls", seen.fell), ("jumps", seen.taken)):
            left = mask & wanted.get(name, 0)
            while left:
                lowest = left & -left
                yield name, lowest.bit_length(), what
                left ^= lowest


def _masks(places: Iterable[Place]) -> dict[str, int]:
    masks: dict[str, int] = {}
    for name, number in places:
        masks[name] = masks.get(name, 0) | 1 << number
    return masks


@cache
def _places() -> dict[tuple[str, int], list[Place]]:
    """Where each instruction of the sources has been linked to, by its key."""
    places: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for name in RECORDED:
        for number, one in enumerate(blob(name).instructions):
            places[one.key].append((name, number))
    return dict(places)


def _decides(name: str, number: int) -> int:
    """The conditional jump of a fault: itself, or the next one."""
    following = blob(name).instructions[number : number + _SOON]
    return next((number + more for more, one in enumerate(following) if one.target is not None), number)


@cache
def _numbers(name: str) -> dict[int, int]:
    """Of a blob: the number of each instruction by its offset."""
    return {one.offset: number for number, one in enumerate(blob(name).instructions)}


def _near(name: str, number: int) -> set[Place]:
    instructions, numbers = blob(name).instructions, _numbers(name)
    around = set(range(max(number - _NEAR, 0), min(number + _NEAR + 1, len(instructions))))
    for one in tuple(around):
        if (there := numbers.get(instructions[one].target or -1)) is not None:
            around |= set(range(there, min(there + _NEAR, len(instructions))))
    return {(name, one) for one in around}
