"""The linked helper answers as the reference does, byte for byte, whatever its host asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

import pytest

from emulator_tests.reference.beside import Beside, Differ
from emulator_tests.reference.host import Host
from emulator_tests.reference.terms import PLAIN, STRICT, UNABLE, Terms

STEPS = 60
"""Of a host; each has numbers of its own, so any of them can be left out."""


def steps_of(seed: int) -> list[str]:
    """A host's."""
    return [f"{seed} {number}" for number in range(STEPS)]


def terms_of(seed: int) -> Terms:
    """An owner asks for a strict finish from 100 on, and from 200 on in vain."""
    return UNABLE if seed >= 200 else STRICT if seed >= 100 else PLAIN


def differ(steps: Sequence[str], terms: Terms = PLAIN) -> Differ | None:
    """Where the two differ after these steps, if they do."""
    host = Host(Beside(terms))
    try:
        for step in steps:
            host.step(Random(step))
    except Differ as found:
        return found
    return None


def fewest(steps: list[str], fails: Callable[[Sequence[str]], object]) -> list[str]:
    """Without those of `steps` that it does not take to fail."""
    for step in list(steps):
        fewer = [other for other in steps if other != step]
        if fails(fewer):
            steps = fewer
    return steps


@pytest.mark.parametrize("seed", [*range(16), *range(100, 106), 200])
def test_whatever_a_host_asks_for(seed: int) -> None:
    steps, terms = steps_of(seed), terms_of(seed)
    if differ(steps, terms) is not None:
        needed = fewest(steps, partial(differ, terms=terms))
        pytest.fail(f"{differ(needed, terms)}, after {needed}")


def test_steps_that_it_does_not_take_are_left_out() -> None:
    assert fewest(list("abcdef"), lambda steps: {"b", "e"} <= set(steps)) == ["b", "e"]
