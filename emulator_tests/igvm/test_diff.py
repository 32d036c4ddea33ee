"""`ovmf diff` and `ovmf check` of IGVM files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.small import patched
from emulator_tests.firmware.test_diff import DRIVERS, listed
from emulator_tests.igvm.conftest import VCPUS
from emulator_tests.igvm.test_announced import newer
from mh_abi import abi
from mh_builder.firmware.inject import inject
from mh_builder.firmware.measure import Vcpus
from mh_builder.igvm.announced import announce
from mh_builder.igvm.file import Igvm
from mh_builder.igvm.layout import VMSA_GPA
from mh_builder.igvm.read import read_igvm
from mh_builder.igvm.wrap import wrap
from mh_builder.igvm.write import sealed
from mh_builder.image.model import Image


def test_what_differs_of_wraps(command: Command, tmp_path: Path, small: bytes, images: dict[str, Image]) -> None:
    before = wrap(small, VCPUS)
    assert listed(command, tmp_path, before, before) == set()
    after = wrap(inject(small, images["regions"].data), VCPUS)
    assert {change for change in listed(command, tmp_path, before, after) if change[1] in (DRIVERS, "IGVM")} == {
        ("added", DRIVERS, abi.MH_LOADER_FILE_GUID), ("added", DRIVERS, abi.MH_IMAGE_FILE_GUID),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("vcpus", "expected"),
    [
        (
            Vcpus(3, VCPUS.signature),
            [
                ("added", "IGVM", f"VP_CONTEXT at {VMSA_GPA:#x} for %s"),
                ("added", "memory", "registers of vCPU 2 for %s"),
            ],
        ),
        (
            Vcpus(2, 0x00A00F12),
            [("changed", "memory", f"registers of vCPU {number} for %s") for number in range(2)],
        ),
    ],
)
def test_vcpus(
    command: Command, tmp_path: Path, small: bytes, vcpus: Vcpus, expected: list[tuple[str, str, str]]
) -> None:
    assert listed(command, tmp_path, wrap(small, VCPUS), wrap(small, vcpus)) == {
        *((kind, where, title % platform) for kind, where, title in expected for platform in ("SEV_ES", "SEV_SNP")),
        ("changed", "launch", "seves"),
        ("changed", "launch", "snp"),
    }


def test_the_same_firmware_in_a_flash_image(command: Command, tmp_path: Path, small: bytes) -> None:
    """It is launched to the same digests."""
    after = wrap(small, Vcpus(1, VCPUS.signature))
    assert listed(command, tmp_path, small, after) == {("changed", "image", "image")}


@pytest.fixture(scope="session")
def brought(small: bytes, images: dict[str, Image]) -> Igvm:
    """A file that brings a helper beside the firmware."""
    return announce(read_igvm(wrap(newer(small), VCPUS)), images["regions"].data)


def test_a_helper_beside_the_firmware(command: Command, tmp_path: Path, small: bytes, brought: Igvm) -> None:
    """No file is added, memory is."""
    found = listed(command, tmp_path, wrap(newer(small), VCPUS), brought.data)
    assert {where for _, where, _ in found} == {"IGVM", "memory", "launch"}
    assert {kind for kind, where, _ in found if where == "memory"} == {"added"}


def helper_row(command: Command, tmp_path: Path, data: bytes) -> tuple[int, str, str]:
    """(exit code, answer, reason)."""
    (tmp_path / "in.igvm").write_bytes(data)
    outcome = command("ovmf", "check", "in.igvm", "--json")
    row = next(row for row in json.loads(outcome.out)["rows"] if row["question"] == "helper whole")
    return outcome.code, row["answer"], row["reason"]


def test_check_of_a_helper_beside_the_firmware(command: Command, tmp_path: Path, brought: Igvm) -> None:
    code, answer, reason = helper_row(command, tmp_path, brought.data)
    assert (code, answer) == (0, "yes")
    assert reason.startswith("regions at 0x4000000 to ")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"\x01\x02\0\0\0\0\0\0", b"\x01\x03\0\0\0\0\0\0", "announces the helper at 0x"),
        (None, b"\xcc", "IGVM: SHA-256 of the helper's image is "),
    ],
)
def test_check_of_a_spoiled_one(
    command: Command,
    tmp_path: Path,
    brought: Igvm,
    images: dict[str, Image],
    old: bytes | None,
    new: bytes,
    reason: str,
) -> None:
    """Its loader's HOB has another type; a byte of it is another."""
    at = brought.data.rindex(images["regions"].data[:64]) + 0x200 if old is None else brought.data.rindex(old)
    code, answer, said = helper_row(command, tmp_path, sealed(bytearray(patched(brought.data, at, new))))
    assert (code, answer) == (1, "no")
    assert reason in said


def test_without_firmware(command: Command, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    assert (
        command("build", "--scheme", "alias-gpa", "--start", "es", "--c-bit", "51", "--igvm", "-o", "blobs").code == 0
    )
    outcome = command("ovmf", "check", "blobs/alias-gpa.igvm")
    assert outcome.code == 1
    assert outcome.out.startswith("no          * readable               IGVM: no firmware: ")
