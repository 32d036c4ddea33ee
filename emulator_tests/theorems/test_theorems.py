"""Each theorem holds for its images, and some of the faults break it; `make theorems` plants all."""

from __future__ import annotations

import pytest

from emulator_tests.command.conftest import ROOT
from emulator_tests.theorems import address, bitmap, dispatch, geometry, packet, secret
from emulator_tests.theorems.theorem import Theorem

MODULES = (address, bitmap, dispatch, geometry, packet, secret)
THEOREMS = [theorem for module in MODULES for theorem in module.THEOREMS]
SAMPLE = 2
"""Faults of each theorem."""


@pytest.mark.parametrize(("theorem", "image"), [(one, image) for one in THEOREMS for image in one.images], ids=str)
def test_it_holds(theorem: Theorem, image: str) -> None:
    theorem.check(theorem.code(image))


def test_the_page_lists_them() -> None:
    text = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    listed = text.partition("<!-- theorems -->\n")[2].partition("<!-- /theorems -->")[0]
    assert listed.splitlines() == [f"- {theorem}" for theorem in THEOREMS]


@pytest.mark.parametrize("theorem", THEOREMS, ids=str)
def test_faults_break_it(theorem: Theorem) -> None:
    faults = theorem.faults()
    sample = faults[:: -(-len(faults) // SAMPLE)]
    assert sample
    assert [str(fault) for fault in sample if theorem.survives(fault)] == []
