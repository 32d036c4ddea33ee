"""Releases of edk2, patched, built and booted: `make test-firmware`. Not collected by the suite.

Both that Debian has, or the tree that the variable TREE names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emulator_tests.edk2.conftest import CACHE, Edk2
from emulator_tests.edk2.edk2_build import build_ovmf, build_tree
from mh_abi import abi
from mh_builder.firmware.flash import read_flash
from mh_builder.firmware.inject import _with_contents, extract
from mh_builder.helper import build_helper
from mh_builder.needs import FIRMWARE, NEEDS
from mh_builder.schemes.space import Options
from mh_cli.main import main
from mh_qemu.machine import QemuMachine
from ovmf_patches.sources import SUITES

BOOT_SECONDS = 240
PREBUILT = Path("/usr/share/OVMF/OVMF_CODE.fd")
IMAGE = build_helper("regions", Options()).data
DESCRIPTOR = abi.mh_descriptor(IMAGE)
LOADED = f"{abi.MH_DEBUG_MARKER}{DESCRIPTOR.home:016x} {DESCRIPTOR.memory_bytes:016x}"

FIRMWARE_USES = 0x80_0000
"""OVMF's MEMFD: page tables, work areas and PEI's memory, all reserved or in use when DXE begins."""


@contextmanager
def booted(code: Path, variables: Path) -> Iterator[QemuMachine]:
    drives = [
        f"if=pflash,format=raw,unit=0,readonly=on,file={code}",
        f"if=pflash,format=raw,unit=1,snapshot=on,file={variables}",
    ]
    with QemuMachine([word for drive in drives for word in ("-drive", drive)]) as machine:
        yield machine


GIVEN = os.environ.get("TREE")


@pytest.fixture(scope="module", params=[GIVEN] if GIVEN else list(SUITES))
def firmware(request: pytest.FixtureRequest, edk2: Edk2, program: Callable[[str], str]) -> Path:
    """The folder of the built images."""
    for need in NEEDS:
        if FIRMWARE in need.uses:
            program(need.name)
    source = Path(GIVEN).expanduser() if GIVEN else edk2(request.param)
    tree = CACHE / "build" / source.name
    tree.parent.mkdir(parents=True, exist_ok=True)
    build_tree(source, tree)
    assert main(["ovmf", "patch", "--edk2", str(tree), "--scheme", "regions"]) == 0
    return build_ovmf(tree, source.name)


def test_it_boots_and_loads_the_helper(firmware: Path, linux_kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, variables = firmware / "OVMF_CODE.fd", firmware / "OVMF_VARS.fd"
    assert main(["ovmf", "boot", str(code), "--vars", str(variables), "--kernel", str(linux_kernel), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["line"], report["first_difference"]) == (LOADED, None)
    assert report["e820"] == [[DESCRIPTOR.home, DESCRIPTOR.home + DESCRIPTOR.memory_bytes, "reserved"]]


def test_the_image_reads_as_one_that_was_injected(firmware: Path) -> None:
    carried = extract((firmware / "OVMF_CODE.fd").read_bytes())
    assert carried.blob == IMAGE
    assert carried.entry.base == DESCRIPTOR.home


def test_an_injected_image_leaves_the_same_memory(firmware: Path, tmp_path: Path) -> None:
    if not PREBUILT.is_file():
        pytest.skip(f"{PREBUILT} is not there (Debian: ovmf)")
    code = tmp_path / "injected.fd"
    assert main(["ovmf", "inject", str(PREBUILT), "-o", str(code), "--scheme", "regions"]) == 0
    with booted(code, PREBUILT.with_name("OVMF_VARS.fd")) as machine:
        assert machine.wait_for_debug(abi.MH_DEBUG_MARKER, BOOT_SECONDS) == LOADED
        machine.stop()
        injected = machine.read_memory(DESCRIPTOR.home, DESCRIPTOR.memory_bytes)
    with booted(firmware / "OVMF_CODE.fd", firmware / "OVMF_VARS.fd") as machine:
        assert machine.wait_for_debug(abi.MH_DEBUG_MARKER, BOOT_SECONDS) == LOADED
        machine.wait_for_debug("[Bds]", BOOT_SECONDS)
        assert machine.read_memory(DESCRIPTOR.home, DESCRIPTOR.memory_bytes) == injected


def with_digest(image: bytes) -> tuple[bytes, bytes]:
    return image, hashlib.sha256(image).digest()


def damaged() -> tuple[bytes, bytes]:
    return IMAGE[:-1] + bytes([IMAGE[-1] ^ 1]), hashlib.sha256(IMAGE).digest()


def of_another_version() -> tuple[bytes, bytes]:
    descriptor = abi.mh_descriptor(IMAGE)
    descriptor.version += 1
    return with_digest(descriptor.dumps() + IMAGE[len(descriptor) :])


def at_home_in_the_firmware() -> tuple[bytes, bytes]:
    image = build_helper("regions", Options(home=FIRMWARE_USES)).data
    assert len(image) == len(IMAGE)
    return with_digest(image)


ERROR = 1 << 63


@pytest.mark.parametrize(
    ("made", "step", "status"),
    [
        (damaged, abi.mh_load_step.MH_LOAD_DIGEST, ERROR | 33),
        (of_another_version, abi.mh_load_step.MH_LOAD_DESCRIPTOR, ERROR | 1),
        (at_home_in_the_firmware, abi.mh_load_step.MH_LOAD_RESERVE, ERROR | 14),
    ],
)
def test_what_cannot_be_loaded_is_named_and_the_guest_boots(
    firmware: Path, tmp_path: Path, made: Callable[[], tuple[bytes, bytes]], step: Any, status: int
) -> None:
    """EFI_COMPROMISED_DATA, EFI_LOAD_ERROR, EFI_NOT_FOUND: UEFI 2.10, appendix D."""
    flash = read_flash((firmware / "OVMF_CODE.fd").read_bytes())
    image, digest = made()
    inner = flash.inner.replace(IMAGE, image).replace(hashlib.sha256(IMAGE).digest(), digest)
    code = tmp_path / "changed.fd"
    code.write_bytes(_with_contents(flash, inner))
    with booted(code, firmware / "OVMF_VARS.fd") as machine:
        line = machine.wait_for_debug(abi.MH_DEBUG_MARKER, BOOT_SECONDS)
        assert line == f"{abi.MH_DEBUG_MARKER}failed {step.value:02x} {status:016x}"
        machine.wait_for_debug("[Bds]", BOOT_SECONDS)
        assert IMAGE[:64] not in machine.read_memory(DESCRIPTOR.home, DESCRIPTOR.memory_bytes)
