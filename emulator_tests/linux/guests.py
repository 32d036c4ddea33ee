"""Debian's kernel under every scheme, on every part, stopped elsewhere, and later kernels: `make test-guests`.

Not of the suite.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command, Outcome
from emulator_tests.conftest import FIRMWARE, debians_kernel
from emulator_tests.linux.conftest import command
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES
from ovmf_patches.kernels import SUITES

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
    check_moved(command("boot", "--kernel", linux_kernel, "--migrate", *options, "--json"))


@pytest.mark.parametrize("where", ["syscall", "interrupt"])
def test_is_stopped_in_its_kernel_and_does_not_notice(linux_kernel: Path, command: Command, where: str) -> None:
    """At the first instruction there, with the stack and GS of its process: what it prints is as of one that stays."""
    stays = command("boot", "--kernel", linux_kernel, "--json")
    moves = command("boot", "--kernel", linux_kernel, "--migrate", "--at", where, "--json")
    assert stays.code == 0, stays.err
    check_moved(moves)
    found = json.loads(moves.out)
    assert json.loads(stays.out)["console"] == found["console"]
    stopped = found["stopped"]
    assert (stopped["privilege"], stopped["interrupts"]) == (0, False)
    assert stopped["rip"] >= 0xFFFF_FFFF_8000_0000
    assert stopped["process_rip"] in range(0x40_0000, 0x40_1000)


@pytest.mark.parametrize("suite", SUITES[1:])
def test_a_later_kernel_is_migrated_and_does_not_notice(command: Command, suite: str) -> None:
    kernel = debians_kernel(suite)
    stays, moves = (command("boot", "--kernel", kernel, *options, "--json") for options in ((), ("--migrate",)))
    assert stays.code == 0, stays.err
    check_moved(moves)
    assert json.loads(stays.out)["console"] == json.loads(moves.out)["console"]


def check_moved(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["guest_ok"]
    assert found["moved"]["equal"]
    assert "Memory Encryption Features active: AMD SEV" in found["console"]


@pytest.mark.parametrize(("scheme", "part"), [("regions", "milan"), ("isolated", "genoa")])
def test_an_sev_es_guest_works_and_repeats_exactly(
    linux_kernel: Path, command: Command, scheme: str, part: str
) -> None:
    guest = ("boot", "--kernel", linux_kernel, "--start", "es", "--scheme", scheme, "--part", part, "--json")
    first, second = command(*guest), command(*guest)
    assert first.code == 0, first.err
    found = json.loads(first.out)
    assert found["guest_ok"]
    assert found["helper_equal"]
    assert "Memory Encryption Features active: AMD SEV SEV-ES" in found["console"]
    assert json.loads(second.out)["console"] == found["console"]


@pytest.mark.parametrize("image", ["bookworm/OVMF_CODE.fd", "trixie/OVMF_CODE_4M.fd"])
def test_firmware_loads_it_and_the_helper(linux_kernel: Path, command: Command, image: str) -> None:
    """The loader in the firmware brings the helper, ACPI and kernel come by fw_cfg, and all of it moves."""
    guest = ("boot", "--fd", FIRMWARE / image, "--kernel", linux_kernel, "--json")
    stays, moves = command(*guest), command(*guest, "--migrate")
    assert stays.code == 0, stays.err
    check_moved(moves)
    found = json.loads(moves.out)
    assert json.loads(stays.out)["console"] == found["console"]
    assert "EFI stub" in found["console"]
    seen = [milestone["what"] for milestone in found["milestones"]]
    assert seen[:2] == ["launched", "loader's line"]
