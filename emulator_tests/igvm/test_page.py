"""docs/igvm.md: its commands run, in their order."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from emulator_tests.command.conftest import ROOT, Command
from emulator_tests.firmware.conftest import Find
from mh_qemu.machine import PROGRAM

TEXT = (ROOT / "docs" / "igvm.md").read_text(encoding="utf-8")


def test_commands(stock: Find, command: Command, program: Callable[[str], str], tmp_path: Path) -> None:
    program(PROGRAM)
    shutil.copy(stock("X64"), tmp_path / "OVMF.fd")
    block = re.search(r"```sh\n(.+?)```", TEXT, re.DOTALL)
    assert block is not None
    for line in block[1].splitlines():
        outcome = command(*line.removeprefix("build.py ").split())
        assert (outcome.code, outcome.err) == (0, ""), line
        if line.startswith("build.py ovmf boot"):
            assert outcome.out.endswith("equal to the image, byte for byte\n")
