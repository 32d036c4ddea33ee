"""A pytest session that collects once, and then runs for each mutant, in its own process, the tests that reach it."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import pytest

from emulator_tests.mutation.child import Child
from emulator_tests.mutation.mutants import Mutant
from emulator_tests.mutation.order import order
from emulator_tests.mutation.plant import changed, planted
from emulator_tests.mutation.record import Run
from emulator_tests.mutation.results import Result, Results

_BRIEFLY = 5
"""Seconds for a fault that carries a reason why no test can notice it."""


class Loop:
    """Runs the mutants, `jobs` at once; one lives when its tests pass, or have passed for so many CPU `seconds`."""

    def __init__(
        self, mutants: Sequence[Mutant], tests: Mapping[str, Run], results: Results, jobs: int, seconds: float
    ) -> None:
        self._mutants, self._tests, self._results = mutants, tests, results
        self._jobs, self._seconds = jobs, seconds
        self._running: dict[int, tuple[Mutant, Child]] = {}
        self._items: dict[str, pytest.Item] = {}
        self._noticed: dict[str, Counter[str]] = defaultdict(Counter)
        for result in results.found.values():
            self._noticed[result.mutant.source][result.last] += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In the place of running the tests."""
        self._items = {item.nodeid: item for item in session.items}
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
        ordered = order(self._tests, mutant, self._noticed[mutant.source])
        tests = [test for test in ordered if test in self._items]
        if not tests:
            self._results.add(Result(mutant, "is not reached", ""))
            return
        seconds = self._seconds if mutant.equivalent is None else min(_BRIEFLY, self._seconds)
        child = self._child(mutant, tests, seconds)
        self._running[child.pid] = mutant, child

    def _reap(self) -> None:
        pid, status = os.wait()
        if pid not in self._running:
            return
        mutant, child = self._running.pop(pid)
        passed, last = child.end(status)
        self._noticed[mutant.source][last] += not passed
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
