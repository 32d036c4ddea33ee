"""That the linked helper answers as the reference does could fail: with any rule changed, it does not."""

from __future__ import annotations

from random import Random

import pytest

from emulator_tests.reference.host import Host
from emulator_tests.reference.journal import Journal, replayed
from emulator_tests.reference.mutants import MUTANTS, Mutant
from emulator_tests.reference.test_beside import steps_of, terms_of

SEEDS = (0, 9, 11, 17, 19, 21, 102, 103, 143)
"""Of hosts who among them meet every rule; where hosts change, others may."""


@pytest.fixture(scope="module")
def journals() -> list[Journal]:
    """What these hosts did."""
    return [journal(seed) for seed in SEEDS]


def journal(seed: int) -> Journal:
    both = Journal(terms_of(seed))
    host = Host(both)
    for step in steps_of(seed):
        host.step(Random(step))
    both.compare()
    return both


def test_a_journal_repeats(journals: list[Journal]) -> None:
    assert all(replayed(journal) for journal in journals)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule.replace(" ", "-"))
def test_a_changed_rule_is_noticed(mutant: Mutant, journals: list[Journal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant.owner, mutant.name, mutant.function)
    assert not all(replayed(journal) for journal in journals)
