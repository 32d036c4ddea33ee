"""Debian's kernel under every scheme, on every part, stopped elsewhere: `make test-guests`. Not of the suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.linux.conftest import command
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES

__all__ = ["command"]

CASES = [
    *(("--scheme", scheme) for scheme in SCHEMES if scheme != "regions"),
    *(("--part", part) for part in PARTS if part != "milan"),
    ("--at", "idle"),
    ("--at", "0"),
    ("--at", "11"),
    ("--memory", "1G"),
]


@pytest.mark.parametrize("options", CASES, ids=" ".join)
def test_migrates(linux_kernel: Path, command: Command, options: tuple[str, ...]) -> None:
    outcome = command("boot", "--kernel", linux_kernel, "--migrate", *options, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["guest_ok"]
    assert found["moved"]["equal"]
    assert "Memory Encryption Features active: AMD SEV" in found["console"]
