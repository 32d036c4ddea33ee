"""A pytest session that collects once, and then runs for each mutant, in its own process, the tests that reach it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import pytest

from emulator_tests.coverage.blobs import NAMES, blob, linked
from emulator_tests.mutation.child import Child
from emulator_tests.mutation.mutants import Mutant
from emulator_tests.mutation.plant import changed, planted
from emulator_tests.mutation.record import Run
from emulator_tests.mutation.results import Result, Results


def order(tests: Mapping[str, Run], mutant: Mutant) -> list[str]:
    """The tests that run the mutant's instruction: the cheapest of every function first, then the second of each."""
    found: dict[str, list[str]] = {}
    for test in sorted(_reaching(tests, mutant), key=lambda test: (tests[test].seconds, test)):
        found.setdefault(test.partition("[")[0], []).append(test)
    rounds = [(number, test) for ones in found.values() for number, test in enumerate(ones)]
    return [test for _, test in sorted(rounds, key=lambda one: (one[0], tests[one[1]].seconds, one[1]))]


def _reaching(tests: Mapping[str, Run], mutant: Mutant) -> set[str]:
    places = [
        (name, index)
        for name in NAMES
        for index, one in enumerate(blob(name).instructions)
        if one.key == (mutant.place, mutant.count)
    ]
    return {test for test, run in tests.items() if any(run.runs(name, index) for name, index in places)}


class Loop:
    """Runs the mutants, `jobs` at once; one lives when its tests pass, or have passed for so many `seconds`."""

    def __init__(
        self, mutants: Sequence[Mutant], tests: Mapping[str, Run], results: Results, jobs: int, seconds: float
    ) -> None:
        self._mutants, self._tests, self._results = mutants, tests, results
        self._jobs, self._seconds = jobs, seconds
        self._running: dict[int, tuple[Mutant, Child]] = {}
        self._items: dict[str, pytest.Item] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In the place of running the tests."""
        self._items = {item.nodeid: item for item in session.items}
        with changed(None):
            # Assembled once, so that no child has to.
            for name in NAMES:
                linked(name)
        for mutant in self._mutants:
            while len(self._running) >= self._jobs:
                self._reap()
            self._start(mutant)
        while self._running:
            self._reap()
        self._control()
        return True

    def _child(self, mutant: Mutant | None, tests: Sequence[str], seconds: float) -> Child:
        fault = partial(planted, mutant) if mutant else partial(changed, None)
        return Child(
            fault, [self._items[test] for test in tests], [self._tests[test].seconds for test in tests], seconds
        )

    def _start(self, mutant: Mutant) -> None:
        tests = [test for test in order(self._tests, mutant) if test in self._items]
        if not tests:
            self._results.add(Result(mutant, "is not reached", ""))
            return
        child = self._child(mutant, tests, self._seconds)
        self._running[child.pid] = mutant, child

    def _reap(self) -> None:
        pid, status = os.wait()
        if pid not in self._running:
            return
        mutant, child = self._running.pop(pid)
        passed, last = child.end(status)
        self._results.add(Result(mutant, "lives" if passed else "is noticed", last))

    def _control(self) -> None:
        """What noticed a fault has to pass without one: if it does not, it has noticed nothing."""
        left = sorted({result.last for result in self._results.found.values()} & set(self._items))
        while left:
            child = self._child(None, left, math.inf)
            passed, last = child.end(os.waitpid(child.pid, 0)[1])
            if passed:
                return
            self._results.withdraw(last)
            left = left[left.index(last) + 1 :]


def files(tests: Iterable[str]) -> list[str]:
    """What pytest has to collect for them."""
    return sorted({test.partition("::")[0] for test in tests})
