"""The command imports what it uses, when it uses it: help and small verbs do not wait for libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from emulator_tests.command.conftest import ROOT
from mh_cli.main import VERBS
from mh_cli.ovmf import VERBS as OVMF_VERBS

HEAVY = {"capstone", "cryptography", "keystone", "lief", "rich", "unicorn"}

SMALL = [verb for verb in VERBS if verb != "compare"]
"""Verbs whose help does not list attacks, which import what they attack."""

PROBE = """
import json, runpy, sys
try:
    runpy.run_path("build.py", run_name="__main__")
except SystemExit as leave:
    code = leave.code
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    """Modules that are imported when `build.py` with these arguments has run."""
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    code, modules = json.loads(done.stderr)
    assert (code, done.stdout != "") == (0, True)
    return set(modules)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_front_page_needs_no_verb(arguments: list[str]) -> None:
    modules = imported(*arguments)
    assert "mh_cli.main" in modules
    assert not modules & {f"mh_cli.{verb}" for verb in VERBS}
    assert not modules & {*HEAVY, "dissect", "mh_builder", "mh_emulator", "mh_compare", "mh_bench", "mh_qemu"}


@pytest.mark.parametrize(
    "verb", [*(verb for verb in VERBS if verb != "compare"), *(f"ovmf {verb}" for verb in OVMF_VERBS)]
)
def test_help_of_a_verb_imports_no_library(verb: str) -> None:
    """But that of `compare`, which lists the attacks."""
    modules = imported(*verb.split(), "--help")
    assert f"mh_cli.{verb.replace(' ', '_')}" in modules
    assert not modules & HEAVY


def test_doctor_runs_without_libraries() -> None:
    assert not imported("doctor") & HEAVY


def test_every_verb_is_in_the_table() -> None:
    modules = {path.stem for path in (ROOT / "mh_cli").glob("*.py") if "def add_arguments(" in path.read_text()}
    assert modules == {*VERBS, *(f"ovmf_{verb}" for verb in OVMF_VERBS)}
