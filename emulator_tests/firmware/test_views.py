"""The address space of a helper that is still inside of firmware."""

from __future__ import annotations

import json
from pathlib import Path

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from mh_builder.image.model import Image


def test_show_of_injected_firmware(command: Command, injected: Find, images: dict[str, Image], tmp_path: Path) -> None:
    (tmp_path / "regions.bin").write_bytes(images["regions"].data)
    shown = json.loads(command("show", injected("4M"), "--json").out)
    assert shown == json.loads(command("show", "regions.bin", "--json").out)


def test_firmware_without_a_helper(command: Command, stock: Find) -> None:
    outcome = command("show", stock("4M"))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"build.py: error: {stock('4M')}: ")
    assert outcome.err.count("\n") == 1
