"""The corpus and what once failed hold, a fixed number of new inputs do, and a planted fault does not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from emulator_tests.fuzz import corpus
from emulator_tests.fuzz.loop import Loop
from emulator_tests.fuzz.runner import Runner
from emulator_tests.fuzz.script import MOST_BYTES, Script, loads
from emulator_tests.fuzz.seeds import SEEDS
from emulator_tests.mutation.mutants import mutants
from emulator_tests.mutation.plant import planted

INPUTS = 500
"""New ones, in `make test`."""
MOST_FILES = 600
MOST_TRIES = 1000
"""Inputs within which a planted fault has to be found."""


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


def failure(script: Script, violation: str | None) -> str:
    """What a failing input is, and where to put it."""
    return f"{violation}\n{script}\nto keep it: bytes.fromhex({script.dumps().hex()!r}) into {corpus.CRASHES}/NAME.bin"


def check(runner: Runner, data: bytes) -> None:
    outcome = runner.run(loads(data))
    assert outcome.violation is None, failure(loads(data), outcome.violation)


@pytest.mark.parametrize("path", sorted(corpus.CRASHES.glob("*.bin")), ids=lambda path: path.stem)
def test_what_once_failed(runner: Runner, path: Path) -> None:
    check(runner, path.read_bytes())


def test_corpus(runner: Runner) -> None:
    """All of it, whatever order; it reaches what the seeds do, and more."""
    inputs = corpus.read(corpus.FOLDER)
    assert 0 < len(inputs) <= MOST_FILES
    assert max(map(len, inputs)) <= MOST_BYTES
    reached: set[tuple[str, int]] = set()
    for data in inputs:
        outcome = runner.run(loads(data))
        assert outcome.violation is None, failure(loads(data), outcome.violation)
        reached |= outcome.reached
    seeds = set().union(*(runner.run(script).reached for script in SEEDS))
    assert seeds < reached


def test_new_inputs(runner: Runner) -> None:
    """Always the same ones."""
    loop = Loop(runner, random.Random("make test"))
    loop.begin()
    before = len(loop.corpus)
    for _ in range(INPUTS):
        loop.step()
    for script, violation in loop.violations.values():
        pytest.fail(failure(script, violation))
    assert len(loop.corpus) > before


def test_an_input_has_one_trace() -> None:
    """Again after others, and on a stage that was made anew."""
    first, second = Runner(), Runner()
    digests = [first.run(script).digest for script in SEEDS]
    assert [first.run(script).digest for script in reversed(SEEDS)] == digests[::-1]
    assert [second.run(script).digest for script in reversed(SEEDS)] == digests[::-1]
    assert len(set(digests)) > len(SEEDS) - 3


FAULT = "payload/strict.s:95"
"""A jump that is dropped: a page that the guest has changed since it was exported is not noticed."""


def test_a_planted_fault_is_found() -> None:
    """Export, write to that very page, finish: found by a loop that has never seen a write of the guest."""
    (fault,) = (one for one in mutants(("helper",)) if (one.line, one.kind) == (FAULT, "dropped"))
    (strict,) = (script for script in SEEDS if script.stage == "strict")
    seed = Script("strict", tuple(step for step in strict.steps if step.kind != "guest"))
    with planted(fault):
        loop = Loop(Runner(), random.Random("strict"))
        loop.begin(seeds=[seed])
        assert not loop.violations
        while not loop.violations and loop.inputs < MOST_TRIES:
            loop.step()
    ((script, violation),) = loop.violations.values()
    assert "a strict finish, and page" in violation
    assert [step.kind for step in script.steps] == ["submit", "guest", "submit"]
