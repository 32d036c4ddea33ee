"""Debian's OVMF from the reset vector, its loader, and its migration while it runs. More of it: `guests.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.firmware.inject import extract
from mh_builder.firmware.units import Units, split


def test_real_firmware_is_migrated_by_the_helper_that_it_has_loaded(injected: Find, command: Command) -> None:
    """And goes on at the target, until it has nothing to do."""
    path = injected("X64")
    outcome = command("boot", "--fd", path, "--migrate", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    helper = parse_image(extract(path.read_bytes()).blob)
    assert found["debug"] == f"{abi.MH_DEBUG_MARKER}{helper.descriptor.home:016x} {helper.memory_bytes:016x}\n"
    moved = found["moved"]
    assert moved["pages"] > 8000
    assert found["helper_equal"]
    assert moved == {
        "equal": True, "source_plain_pages": 0, "naive_equal_pages": 0,
        "pages": moved["pages"], "shared_pages": moved["shared_pages"], "demanded_pages": 0,
    }  # fmt: skip
    seen = [milestone["what"] for milestone in found["milestones"]]
    assert seen[0] == "launched"
    assert seen.index("loader's line") < seen.index("moved") < seen.index("first use of serial port")
    assert seen[-1] == "idle"
    assert 'BdsDxe: starting Boot0001 "EFI Internal Shell"' in found["serial"]
    assert len(outcome.err.splitlines()) == len(seen)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--fd", "nothing.fd"), 2, "nothing.fd: No such file or directory"),
        (("--fd", "text"), 1, "text: no compressed volume "),
        (("--fd", "{X64}", "--migrate", "--start", "es"), 2, "--migrate needs --start host"),
        (("--fd", "alone.fd", "--start", "es"), 1, "alone.fd: it has no variable store, which SEV-ES firmware needs"),
        (("--fd", "{X64}", "--vars", "text"), 2, "--vars needs --start es"),
        (("--fd", "{X64}", "--vars", "text", "--start", "es"), 1, "text: no variable store: OVMF_VARS.fd is one"),
        (("--fd", "{X64}", "--vars", "{X64}", "--start", "es"), 1, "{X64}: no variable store: "),
        (("--fd", "{X64}", "--vars", "nothing.fd", "--start", "es"), 2, "nothing.fd: No such file or directory"),
        (("--fd", "{X64}", "--memory", "64M"), 2, "--memory 0x4000000: not in 0x8000000 to 0x80000000"),
        (("--fd", "{X64}", "--snapshot", "state"), 2, "--snapshot needs a helper in the firmware: it is made behind "),
        (("--fd", "{X64}", "--snapshot", "state", "--start", "es"), 2, "--snapshot needs --start host"),
        (("--fd", "{X64}", "--snapshot", "text"), 1, "text: no snapshot: it begins with 6e6f20696d616765"),
        (("--fd", "{X64}", "--migrate"), 1, "no image of the migration helper: "),
        (("--fd", "{X64}", "--migrate", "--scheme", "isolated"), 1, "no firmware loads it"),
    ],
)
def test_bad_requests(
    stock: Find, command: Command, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "text").write_text("no image")
    (tmp_path / "alone.fd").write_bytes(stock("X64").read_bytes())
    arguments = [str(stock(text[1:-1])) if text[0] == "{" else text for text in options]
    outcome = command("boot", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert message.replace("{X64}", str(stock("X64"))) in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_image_with_variables_is_two_units(stock: Find) -> None:
    """As Debian has them: one after the other."""
    both, path = stock("with-variables"), stock("X64")
    code, variables = path.read_bytes(), path.with_name(path.name.replace("CODE", "VARS")).read_bytes()
    assert split(both.read_bytes()) == Units(code, variables)
    assert split(code) == Units(code)
