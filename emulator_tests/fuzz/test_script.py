"""Bytes and scripts, what a fuzzer makes of them, and folders of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator_tests.fuzz import corpus
from emulator_tests.fuzz.loop import Loop, kind_of
from emulator_tests.fuzz.mutators import constants, mutated
from emulator_tests.fuzz.runner import Runner
from emulator_tests.fuzz.script import MOST_BYTES, OPERANDS, STAGES, STEPS, Script, loads, step
from emulator_tests.fuzz.seeds import SEEDS
from mh_abi import abi


@given(data=st.binary(max_size=2 * MOST_BYTES))
def test_any_bytes_are_a_script(data: bytes) -> None:
    script = loads(data)
    assert loads(script.dumps()) == script
    assert len(script.dumps()) <= MOST_BYTES
    assert len(str(script).splitlines()) == 1 + len(script.steps)


@pytest.mark.parametrize("script", SEEDS, ids=range(len(SEEDS)))
def test_a_seed_is_its_bytes(script: Script) -> None:
    assert loads(script.dumps()) == script


def test_no_bytes_are_the_first_stage() -> None:
    assert loads(b"") == Script(STAGES[0])


def test_what_is_missing_is_zero() -> None:
    assert loads(bytes([0, STEPS.index("run")])) == Script(STAGES[0], (step("run"),))


def test_a_step_in_words() -> None:
    asked = step("submit", lane="ring 1, urgent", op=int(abi.mh_op.MH_OP_EXPORT), slot=511, address="page 3")
    assert str(asked).startswith("submit: lane ring 1, urgent, then run, op MH_OP_EXPORT, role 0, slot 0x1ff, count 0")
    assert asked.number("slot") == 511
    with pytest.raises(ValueError, match="run has no operand colour"):
        step("run", colour=1)


def test_no_kind_has_more_choices_than_a_byte_has() -> None:
    assert max(len(values) for operands in OPERANDS.values() for values in operands.values()) <= 256


def test_changes_are_decided_by_their_source() -> None:
    """They reach every kind of step, every stage, and numbers of the ABI."""
    changed = [mutated(random.Random(number), SEEDS[number % len(SEEDS)], SEEDS) for number in range(1500)]
    assert changed[:50] == [mutated(random.Random(number), SEEDS[number % len(SEEDS)], SEEDS) for number in range(50)]
    assert {one.kind for script in changed for one in script.steps} == set(STEPS)
    assert {script.stage for script in changed} == set(STAGES)
    assert all(len(script.dumps()) <= MOST_BYTES for script in changed)
    numbers = {int.from_bytes(one.operands[4:], "little") for script in changed for one in script.steps}
    assert {abi.MH_RING_BYTES - 1, abi.MH_RING_ENTRIES + 1} <= set(constants())
    assert len(numbers & set(constants())) > 20


def test_violations_of_one_kind() -> None:
    assert kind_of("ring 0: page 4 has 0xab12, which is secret") == kind_of("ring 1: page 27 has 0x1, which is secret")
    assert kind_of("ring 0: does not halt") != kind_of("ring 0: a register has a secret")


def test_what_is_worth_keeping() -> None:
    """The first time, not the second; and what does the same more often."""
    loop = Loop(Runner(), random.Random(0))
    once = Script("source", (step("submit", op=10),))
    assert [loop.run(once), loop.run(once)] == [True, False]
    assert loop.run(Script("source", once.steps * 4))
    assert len(loop.corpus) == 2


def test_as_few_as_reach_all(tmp_path: Path) -> None:
    resumes = Script("source", (step("submit", op=10),)).dumps()
    both = Script("source", (step("submit", op=10), step("submit", op=9, count=1, chunk=1))).dumps()
    other = Script("target", (step("submit", op=9, count=1, chunk=1),)).dumps()
    runner = Runner()
    kept = corpus.minimized(runner, [resumes, both, other, both])
    every = [runner.run(loads(data)).reached for data in (resumes, both, other)]
    assert set().union(*(runner.run(loads(data)).reached for data in kept)) == set().union(*every)
    assert resumes not in kept
    paths = [corpus.write(tmp_path / "new", data) for data in kept]
    assert sorted(corpus.read(tmp_path / "new")) == sorted(kept)
    assert [path.name for path in paths] == list(map(corpus.name_of, kept))
