"""QEMU as a second machine: it starts, answers, shows its memory and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mh_qemu.machine import PROGRAM, QemuError, QemuMachine
from mh_qemu.qmp import QmpError

ROM_BYTES = 0x10000


@pytest.fixture
def rom(program: Callable[[str], str], tmp_path: Path) -> Path:
    """A boot ROM in real mode: a near jump at the reset vector, then `H` and a newline on the debug port, then HLT."""
    program(PROGRAM)
    code = bytes.fromhex("ba0204 b048 ee b00a ee f4 ebfd")
    image = bytearray(b"\xf4" * ROM_BYTES)
    image[: len(code)] = code
    image[-16:-13] = b"\xe9" + (-ROM_BYTES + 13 & 0xFFFF).to_bytes(2, "little")
    path = tmp_path / "rom"
    path.write_bytes(image)
    return path


def test_a_guest_speaks_and_its_memory_can_be_read(rom: Path) -> None:
    with QemuMachine(["-bios", str(rom)], ram_mib=16) as machine:
        assert machine.wait_for_debug("H", seconds=60) == "H"
        assert machine.serial == ""
        machine.stop()
        assert machine.read_memory(0xFFFFFFF0, 3) == rom.read_bytes()[-16:-13]
        with pytest.raises(QmpError, match="no-such-command"):
            machine.qmp.execute("no-such-command")


def test_a_machine_that_cannot_start_says_why(rom: Path) -> None:
    with pytest.raises(QemuError, match="ended at once.*no-such-option"):
        QemuMachine(["-bios", str(rom), "-no-such-option"])


def test_what_does_not_come_is_named(rom: Path) -> None:
    with (
        QemuMachine(["-bios", str(rom)], ram_mib=16) as machine,
        pytest.raises(QemuError, match="'nothing' has not come on the serial line"),
    ):
        machine.wait_for_serial("nothing", seconds=0.1)


def test_an_absent_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(QemuError, match="qemu-system-x86_64 is not installed"):
        QemuMachine([])
