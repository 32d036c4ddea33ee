"""docs/security.md: what it names exists, and what succeeds it says."""

from __future__ import annotations

import re

from emulator_tests.command.conftest import ROOT
from mh_compare.attacks import ATTACKS
from mh_compare.results import Comparison

TEXT = (ROOT / "docs/security.md").read_text()
NAMED = set(re.findall(r"`([^`]+)`", TEXT))


def test_every_attack_that_it_names_is_carried_out() -> None:
    named = {name for name in NAMED if re.fullmatch(r"(host|guest|tenant)-[a-z-]+", name)}
    assert len(named) > 8
    assert named <= set(ATTACKS)


def test_every_attack_that_succeeds_is_named(comparison: Comparison) -> None:
    """Under whatever scheme and start: a reader finds it among the limits."""
    assert {result.attack for result in comparison.attacks if result.outcome == "succeeds"} <= NAMED


def test_every_claim_names_its_test() -> None:
    rows = [line for line in TEXT.split("## What the host sees")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert [
        row for row in rows if "test_" not in row.split("|")[3] and "emulator_tests/" not in row.split("|")[3]
    ] == []
