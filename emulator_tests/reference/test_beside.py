"""The linked helper answers as the reference does, byte for byte, whatever its host asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest

from emulator_tests.reference.beside import Beside, Differ
from emulator_tests.reference.host import Host

STEPS = 60
"""Of a host; each has numbers of its own, so any of them can be left out."""


def differ(steps: Sequence[str]) -> Differ | None:
    """Where the two differ after these steps, if they do."""
    host = Host(Beside())
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


@pytest.mark.parametrize("seed", range(16))
def test_whatever_a_host_asks_for(seed: int) -> None:
    steps = [f"{seed} {number}" for number in range(STEPS)]
    if differ(steps) is not None:
        needed = fewest(steps, differ)
        pytest.fail(f"{differ(needed)}, after {needed}")


def test_steps_that_it_does_not_take_are_left_out() -> None:
    assert fewest(list("abcdef"), lambda steps: {"b", "e"} <= set(steps)) == ["b", "e"]
