"""Injected images on QEMU: the loader's line, the helper in memory, what a Linux kernel sees reserved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import VARIABLES, Find, build
from mh_builder.firmware import inject
from mh_builder.image.model import Image
from mh_cli.ovmf_boot import Report
from mh_qemu.machine import PROGRAM


def test_helper_is_in_memory_and_reserved(
    injected: Find, command: Command, program: Callable[[str], str], linux_kernel: Path
) -> None:
    program(PROGRAM)
    outcome = command("ovmf", "boot", injected("X64"), "--kernel", linux_kernel, "--ram", "256M", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert report["schema"] == "sev-migration-helper/ovmf-boot/1"
    assert report["line"] == f"SEV-MH {report['base']:016x} {report['memory_bytes']:016x}"
    assert report["first_difference"] is None
    assert report["e820"] == [[report["base"], report["base"] + report["memory_bytes"], "reserved"]]


def test_image_whose_variables_only_smm_writes(injected: Find, command: Command, program: Callable[[str], str]) -> None:
    program(PROGRAM)
    outcome = command("ovmf", "boot", injected("4M-secboot"), "--vars", VARIABLES, "--ram", "256M")
    assert (outcome.code, outcome.err) == (0, "")
    assert "equal to the image, byte for byte" in outcome.out
    refused = command("ovmf", "boot", injected("4M-secboot"))
    what = "this image keeps its variables in SMM and does not start without a store: give --vars"
    assert refused == (2, "", f"build.py: error: {what}\n")


def test_the_driver_of_edk2_runs_in_a_stock_image(
    stock: Find,
    images: dict[str, Image],
    command: Command,
    program: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the place of the loader that `ovmf inject` puts there."""
    program(PROGRAM)
    driver = build("`ovmf_patches/driver`")
    monkeypatch.setattr(inject, "build_loader", lambda: driver)
    path = tmp_path / "driver.fd"
    path.write_bytes(inject.inject(stock("X64").read_bytes(), images["regions"].data))
    outcome = command("ovmf", "boot", path, "--ram", "256M")
    assert (outcome.code, outcome.err) == (0, "")
    assert "equal to the image, byte for byte" in outcome.out


def test_without_qemu(injected: Find, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = command("ovmf", "boot", injected("4M"))
    assert outcome == (1, "", f"build.py: error: {PROGRAM} is not installed (Debian: qemu-system-x86)\n")


@pytest.mark.parametrize("timeout", ["nan", "0", "-1", "inf"])
def test_timeout_that_is_none(injected: Find, command: Command, timeout: str) -> None:
    outcome = command("ovmf", "boot", injected("4M"), f"--timeout={timeout}")
    assert outcome == (2, "", f"build.py: error: timeout of {timeout} s is not in 0 to 86400\n")


def test_image_without_the_helper(stock: Find, command: Command) -> None:
    outcome = command("ovmf", "boot", stock("X64"))
    assert outcome.code == 1
    assert outcome.err.startswith(f"build.py: error: {stock('X64')}: no image of the migration helper: ")


@pytest.mark.parametrize(
    ("entries", "good"),
    [
        (None, True),
        ([(0x4000000, 0x4600000, "reserved")], True),
        ([(0x4000000, 0x4600000, "usable")], False),
        ([(0x3FFF000, 0x4600000, "reserved")], False),
        ([(0x4000000, 0x4500000, "reserved"), (0x4500000, 0x5000000, "usable")], False),
        ([], False),
    ],
)
def test_verdict_on_the_memory_map(entries: list[tuple[int, int, str]] | None, good: bool) -> None:
    assert Report("", 1.0, 0x4000000, 0x600000, None, entries).good is good
    assert not Report("", 1.0, 0x4000000, 0x600000, 5, entries).good
