"""A pytest session that collects once, and runs each test of a sample with each function that it calls spoiled."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from emulator_tests.mutation.child import Child
from emulator_tests.vacuous.calls import Calls, read
from emulator_tests.vacuous.spoil import Function, spoiled

MOST = 4
"""Functions of a test that are spoiled."""
NOT_OURS = {"emulator_tests/edk2/test_driver_parts.py": "it tries C code; what it calls here is input of that"}
"""Files of tests of something else, and why a sample has none of them."""
_TOOK = 10.0
"""Seconds, about, that a test may take; twenty times as long is a hang."""


class Outcome(NamedTuple):
    """Of one test: which spoiled functions it noticed and which it did not, of those that it calls."""

    test: str
    noticed: list[Function]
    missed: list[Function]
    is_tried: bool = True
    """Not so if it fails while its calls are recorded, or takes minutes then."""

    @property
    def is_vacuous(self) -> bool:
        """Whether whatever it calls may answer wrongly."""
        return bool(self.missed) and not self.noticed


def sample(items: Sequence[pytest.Item], each: int) -> Iterator[pytest.Item]:
    """So many tests of each folder, as far from each other as can be, no two of them cases of one function."""
    folders: dict[Path, dict[str, pytest.Item]] = {}
    for item in items:
        if item.nodeid.partition("::")[0] in NOT_OURS:
            continue
        folders.setdefault(item.path.parent, {}).setdefault(item.nodeid.partition("[")[0], item)
    for tests in folders.values():
        found = list(tests.values())
        yield from found[:: max(1, len(found) // each)][:each]


class Loop:
    """Tells each outcome."""

    def __init__(self, each: int, tell: Callable[[Outcome], None]) -> None:
        self._each, self._tell = each, tell

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In the place of running the tests."""
        for item in sample(session.items, self._each):
            self._tell(self._outcome(item))
        return True

    def _outcome(self, item: pytest.Item) -> Outcome:
        outcome = Outcome(item.nodeid, [], [])
        with tempfile.TemporaryDirectory() as folder:
            calls, told = Path(folder) / "calls", Path(folder) / "told"
            if not _passes(item, partial(_recording, item, Calls(calls))):
                return outcome._replace(is_tried=False)
            for function in read(calls):
                passes = _passes(item, partial(spoiled, function, told))
                if told.exists():
                    told.unlink()
                    (outcome.missed if passes else outcome.noticed).append(function)
                if len(outcome.missed) + len(outcome.noticed) == MOST:
                    break
        return outcome


def _passes(item: pytest.Item, inside: Callable[[], AbstractContextManager[None]]) -> bool:
    child = Child(inside, [item], [_TOOK], math.inf)
    return child.end(os.waitpid(child.pid, 0)[1])[0]


@contextmanager
def _recording(item: pytest.Item, calls: Calls) -> Iterator[None]:
    run = item.runtest

    def recorded() -> None:
        with calls.recorded():
            run()

    item.runtest = recorded  # type: ignore[method-assign]
    yield
