"""Every scheme that firmware loads, on every part, and Debian's images: `make test-guests`. Not of the suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.conftest import FIRMWARE
from emulator_tests.measured import Measured, measured
from emulator_tests.q35.conftest import command
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES

__all__ = ["command", "measured"]

IMAGE, WITH_VARIABLES = (FIRMWARE / "bookworm" / name for name in ("OVMF_CODE.fd", "OVMF.fd"))
LOADED = [scheme for scheme in SCHEMES if scheme != "isolated"]
PAIRS = [*((scheme, "milan") for scheme in LOADED), *(("regions", part) for part in PARTS if part != "milan")]


@pytest.mark.parametrize(("scheme", "part"), PAIRS)
def test_migrates(command: Command, measured: Measured, scheme: str, part: str) -> None:
    found = measured(command, "--fd", IMAGE, "--migrate", "--scheme", scheme, "--part", part)
    assert found["moved"]["equal"]
    assert found["milestones"][-1]["what"] == "idle"


def test_a_stock_image_boots_and_does_so_again_in_the_same_way(command: Command, measured: Measured) -> None:
    first, second = (measured(command, "--fd", IMAGE) for _ in range(2))
    assert first["serial"] == second["serial"] != ""
    assert [(one["what"], one["virtual_ms"]) for one in first["milestones"]] == [
        (one["what"], one["virtual_ms"]) for one in second["milestones"]
    ]


def test_a_snapshot_behind_the_loaders_line(command: Command, measured: Measured, tmp_path: Path) -> None:
    """The rest is that of a run from reset, whether it moves or not; the shell's prompt is its end."""
    guest, state = ("--fd", IMAGE, "--scheme", "regions"), tmp_path / "state"
    found = [
        measured(command, *guest),
        measured(command, *guest, snapshot=state),
        measured(command, *guest, snapshot=state),
        measured(command, *guest, "--migrate", snapshot=state),
    ]
    assert [one["snapshot"] for one in found] == [None, "saved", "restored", "restored"]
    ends = [(one["debug"], one["serial"], one["milestones"][-1]["virtual_ms"], one["good"]) for one in found]
    assert ends == [ends[0]] * 4
    assert found[3]["moved"]["equal"]


def test_stock_firmware_boots_with_es(command: Command, measured: Measured) -> None:
    """Its variables lie beside it; the boot manager writes them, by #VC and GHCB."""
    found = measured(command, "--fd", IMAGE, "--start", "es")
    assert found["helper_equal"] is None
    seen = [milestone["what"] for milestone in found["milestones"]]
    assert seen.index("first use of flash") < seen.index("idle") == len(seen) - 1


def test_the_loader_leaves_the_helper_with_es(command: Command, measured: Measured) -> None:
    """From an image with both units in it."""
    found = measured(command, "--fd", WITH_VARIABLES, "--start", "es", "--scheme", "regions")
    assert found["helper_equal"]
    assert "loader's line" in [milestone["what"] for milestone in found["milestones"]]
