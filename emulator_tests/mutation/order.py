"""In which order tests are tried against a fault: a fault that is noticed soon costs little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import chain
from types import MappingProxyType

from emulator_tests.coverage.blobs import NAMES, blob
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

Place = tuple[str, int]
"""Blob, and instruction of it by number."""


def order(tests: Mapping[str, Run], mutant: Mutant, noticed: Mapping[str, int] = MappingProxyType({})) -> list[str]:
    """The tests that run the mutant's instruction: those that noticed most faults of its source come first.

    Then more cases of those, and of tests that run what few others run near it; the first case of every test, the
    second of each, and so on.
    """
    rarity = _rarity(tests, mutant)
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


def _rarity(tests: Mapping[str, Run], mutant: Mutant) -> dict[str, int]:
    """For each test that reaches it: by how many the rarest instruction near it is run that this test runs, in bits."""
    places = list(_places(mutant))
    reaching = {test for test, run in tests.items() if any(run.runs(*place) for place in places)}
    near = set(chain.from_iterable(_near(*place) for place in places))
    return _fewest({test: [place for place in near if tests[test].runs(*place)] for test in reaching})


def _fewest(ran: Mapping[str, Collection[Place]]) -> dict[str, int]:
    many = Counter(chain.from_iterable(ran.values()))
    return {test: min(many[place] for place in places).bit_length() for test, places in ran.items()}


def _places(mutant: Mutant) -> Sequence[Place]:
    return [
        (name, number)
        for name in NAMES
        for number, one in enumerate(blob(name).instructions)
        if one.key == (mutant.place, mutant.count)
    ]


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
