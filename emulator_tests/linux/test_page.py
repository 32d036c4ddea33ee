"""`docs/guests.md`: its tables are those of the boots that were measured, and nothing is missing there."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from emulator_tests.command.conftest import ROOT, docs_program
from emulator_tests.linux import guests as kernels
from emulator_tests.q35 import guests as images
from ovmf_patches.kernels import SUITES

PAGE = ROOT / "docs" / "guests.md"
KEPT = json.loads((ROOT / "docs" / "guests.json").read_text(encoding="utf-8"))
MILESTONES = (
    ("launched", 0.1), ("loader's line", 1.0), ("Linux version 9.1", 2.0),
    ("Memory Encryption Features active: AMD SEV", 3.26), ("Run /init as init process", 4.0), ("saved", 5.0),
    ("stopped", 6.0), ("moved", 7.75), ("idle", 9.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def guests() -> ModuleType:
    return docs_program("guests")


def test_the_page_is_that_of_the_runs(guests: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert guests.filled(page, KEPT) == page, "run `python docs/guests.py`"


def test_every_run_was_good() -> None:
    assert [run["arguments"] for run in KEPT["runs"] if not run["report"]["good"]] == []


def test_every_case_was_measured() -> None:
    """Whatever `make test-guests` boots is in the table."""
    known = [run["arguments"] for run in KEPT["runs"]]
    first = ["--kernel", "bookworm/vmlinuz"]
    expected = [
        *([*first, "--migrate", *options] for options in kernels.CASES),
        *([*first, "--migrate", "--at", at] for at in kernels.PLACES),
        *([*first, "--migrate", "--post-copy", "--at", at] for at in kernels.FOLLOWED),
        *([*first, "--start", "es", "--scheme", scheme, "--part", part] for scheme, part in kernels.ES_CASES),
        *(
            [*first, "--start", "es", "--scheme", scheme, "--part", part, "--migrate"]
            for scheme, part in kernels.ES_CASES
        ),
        *([*first, "--start", "es", "--migrate", "--at", at] for at in kernels.ES_PLACES),
        *(["--kernel", f"{suite}/vmlinuz", "--start", "es", "--migrate"] for suite in kernels.ES_SUITES),
        *(["--fd", fd, "--kernel", f"{suite}/vmlinuz", "--migrate"] for fd, suite in kernels.THROUGH),
        *(["--kernel", f"{suite}/vmlinuz", "--migrate"] for suite in SUITES[1:]),
        *(
            ["--fd", "bookworm/OVMF_CODE.fd", "--migrate", "--scheme", scheme, "--part", part]
            for scheme, part in images.PAIRS
        ),
    ]
    assert [arguments for arguments in expected if arguments not in known] == []


def run(arguments: list[str], milestones: tuple[tuple[str, float], ...], **report: object) -> dict[str, Any]:
    """A boot."""
    steps = [{"what": what, "cpu_seconds": seconds, "virtual_ms": 0.0} for what, seconds in milestones]
    return {"arguments": arguments, "report": {"part": "rome", "helper_equal": True, "milestones": steps} | report}


def test_a_row_has_what_was_measured(guests: ModuleType) -> None:
    """Behind a snapshot only what lies between two of its times counts."""
    moved = {"pages": 11, "shared_pages": 12, "demanded_pages": 0}
    kernel = run(
        ["--kernel", "x", "--migrate", "--at", "syscall", "--scheme", "isolated", "--memory", "1G"],
        MILESTONES, kernel="9.1 (somebody)", moved=moved,
    )  # fmt: skip
    firmware = run(["--fd", "a/X.fd", "--start", "es"], MILESTONES[:2] + MILESTONES[-1:], helper_equal=None, moved=None)
    page = "1<!-- linux -->\nold\n<!-- /linux -->2<!-- firmware -->\n<!-- /firmware -->3"
    filled = guests.filled(page, {"made": "then", "runs": [firmware, kernel]})
    rows = [line for line in filled.splitlines() if line.startswith("| ")]
    assert [row for row in rows if "rome" in row] == [
        "| 9.1, 1G | - | rome | `isolated` | in a system call | 1.0 s | 3.3 s | 4.0 s | 1.8 s | 11 | 12 |",
        "| a/X.fd | rome | none, SEV-ES | 1.0 s | - | 9.0 s | - |",
    ]
    assert filled.startswith("1<!-- linux -->\nMeasured then.\n")
    assert filled.endswith("<!-- /firmware -->3")
    with pytest.raises(ValueError, match="no <!-- firmware --> in the page"):
        guests.filled(page[:40], {"made": "", "runs": []})
