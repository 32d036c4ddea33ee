"""Every scheme that firmware loads, on every part, and stock images: `make test-guests`. Not collected by the suite."""

from __future__ import annotations

import json

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES

LOADED = [scheme for scheme in SCHEMES if scheme != "isolated"]
PAIRS = [*((scheme, "milan") for scheme in LOADED), *(("regions", part) for part in PARTS if part != "milan")]


@pytest.mark.parametrize(("scheme", "part"), PAIRS)
def test_migrates(stock: Find, command: Command, scheme: str, part: str) -> None:
    path = stock("X64")
    outcome = command("boot", "--fd", path, "--migrate", "--scheme", scheme, "--part", part, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["moved"]["equal"]
    assert found["milestones"][-1]["what"] == "idle"


def test_a_stock_image_boots_and_does_so_again_in_the_same_way(stock: Find, command: Command) -> None:
    outcomes = [command("boot", "--fd", stock("X64"), "--json") for _ in range(2)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes[0].err
    first, second = (json.loads(outcome.out) for outcome in outcomes)
    assert first["serial"] == second["serial"] != ""
    assert [(one["what"], one["virtual_ms"]) for one in first["milestones"]] == [
        (one["what"], one["virtual_ms"]) for one in second["milestones"]
    ]


def test_stock_firmware_boots_with_es(stock: Find, command: Command) -> None:
    """Its variables lie beside it; the boot manager writes them, by #VC and GHCB."""
    outcome = command("boot", "--fd", stock("X64"), "--start", "es", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["helper_equal"] is None
    seen = [milestone["what"] for milestone in found["milestones"]]
    assert seen.index("first use of flash") < seen.index("idle") == len(seen) - 1


def test_the_loader_leaves_the_helper_with_es(stock: Find, command: Command) -> None:
    """From an image with both units in it."""
    outcome = command("boot", "--fd", stock("with-variables"), "--start", "es", "--scheme", "regions", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["helper_equal"]
    assert "loader's line" in [milestone["what"] for milestone in found["milestones"]]
