"""IGVM files under QEMU, which places their pages as a loader of IGVM files would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from mh_builder.firmware import guids
from mh_builder.firmware.table import read_table
from mh_qemu.machine import PROGRAM


def test_a_helper_beside_the_firmware(
    stock: Find, command: Command, program: Callable[[str], str], tmp_path: Path
) -> None:
    """Firmware of edk2-stable202511 and later starts the loader; older firmware is refused, for it would not."""
    program(PROGRAM)
    path = stock("4M")
    command("ovmf", "wrap", path, "-o", "stock.igvm")
    outcome = command("ovmf", "inject", "stock.igvm", "-o", "with.igvm", "--scheme", "regions", "--by", "hob")
    if read_table(path.read_bytes()).find(guids.IGVM_METADATA) is None:
        message = "no IGVM metadata in the GUIDed table: the firmware reads no data HOBs"
        assert outcome == (1, "", f"build.py: error: stock.igvm: {message}\n")
        assert not (tmp_path / "with.igvm").exists()
        return
    assert (outcome.code, outcome.err) == (0, "")
    booted = command("ovmf", "boot", "with.igvm", "--ram", "256M")
    assert (booted.code, booted.err) == (0, "")
    assert booted.out.endswith("equal to the image, byte for byte\n")
