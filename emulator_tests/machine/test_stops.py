"""Two stops at once: the order in which they are handled."""

from __future__ import annotations

from itertools import combinations

import pytest

from mh_emulator.cpu.mmu import Access
from mh_emulator.cpu.nested import NoSlotError
from mh_emulator.cpu.stop import Invalid, Raised, Stop, first
from mh_emulator.cpu.tlb import Missed
from mh_emulator.cpu.traps import Trap, Trapped

ORDER: list[Stop] = [Raised(3), Invalid(), Trapped(Trap.HLT, 1), Missed(NoSlotError(0), Access.READ, 0)]


@pytest.mark.parametrize(("before", "behind"), list(combinations(ORDER, 2)), ids=repr)
def test_order_does_not_depend_on_what_was_noted_first(before: Stop, behind: Stop) -> None:
    assert first([before, behind]) is before
    assert first([behind, before]) is before


def test_later_one_of_a_kind() -> None:
    assert first([Raised(3), Raised(6)]) == Raised(6)


def test_one_and_none() -> None:
    assert first([ORDER[3]]) is ORDER[3]
    assert first([]) is None
