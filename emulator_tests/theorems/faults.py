"""Every small fault of the code that a theorem is about breaks it: `make theorems`. Not collected by the suite."""

from __future__ import annotations

import pytest

from emulator_tests.mutation.mutants import Mutant
from emulator_tests.theorems.test_theorems import THEOREMS
from emulator_tests.theorems.theorem import Theorem


@pytest.mark.parametrize(("theorem", "fault"), [(one, fault) for one in THEOREMS for fault in one.faults()], ids=str)
def test_it_breaks(theorem: Theorem, fault: Mutant) -> None:
    assert not theorem.survives(fault)
