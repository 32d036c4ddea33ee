"""The table of claims: counted, worst first, and each with tests that there are."""

from __future__ import annotations

import pytest

from emulator_tests.claims.plugin import written
from emulator_tests.claims.table import CLAIMS, Claim, rows
from emulator_tests.command.conftest import ROOT

PAGE = ROOT / "docs" / "verification.md"


def test_rows_of_a_run() -> None:
    claims = [Claim("first", ("a.py::x", "b.py")), Claim("second", ("c.py",)), Claim("third", ("a.py",))]
    outcomes = {"a.py::x[1]": "passed", "a.py::y": "skipped", "b.py::z": "passed", "d.py::w": "failed"}
    assert list(rows(outcomes, claims)) == [
        ("first", 2, "holds"),
        ("second", 0, "not tried"),
        ("third", 2, "1 skipped"),
    ]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:40])
def test_a_claim_has_tests(claim: Claim) -> None:
    """Each of its beginnings is that of a file, or names a function of one."""
    for test in claim.tests:
        path, _, function = test.partition("::")
        files = list(ROOT.glob(f"{path}*"))
        assert files, test
        assert all(f"def {function}" in file.read_text(encoding="utf-8") for file in files), test


def test_the_page_has_the_claims_in_their_order() -> None:
    table = [line.split("|")[1].strip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert table[2:] == [claim.text for claim in CLAIMS]


def test_a_run_replaces_the_table_and_nothing_else() -> None:
    page = "before\n<!-- verification -->\nold\n<!-- /verification -->\nafter\n"
    once = written(page, {"emulator_tests/claims/test_stack.py::a": "failed"})
    assert once.startswith("before\n<!-- verification -->\nLast run: ")
    assert once.endswith("<!-- /verification -->\nafter\n")
    assert "| 1 | 1 failed |" in once
    assert once.count("not tried") == len(CLAIMS) - 1
    assert written(once, {}).count("| claim |") == 1
    with pytest.raises(ValueError, match="no <!-- verification -->"):
        written("page", {})
