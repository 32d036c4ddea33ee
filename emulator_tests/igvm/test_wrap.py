"""Flash images as IGVM files: another path to the same digests."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import STOCK, Find
from emulator_tests.igvm import oracle
from emulator_tests.igvm.conftest import VCPUS
from mh_builder.firmware import measure
from mh_builder.firmware.digests import Mode
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.measure import Vcpus
from mh_builder.igvm.firmware import flash_of, with_flash
from mh_builder.igvm.launch import PLATFORMS, launch_digest, modes
from mh_builder.igvm.read import read_igvm
from mh_builder.igvm.wrap import wrap


@pytest.mark.parametrize("name", list(STOCK))
@pytest.mark.parametrize("vcpus", [Vcpus(1, 0x00830F10), Vcpus(3, 0x00A10F11, snp_features=0x21)])
def test_digests_are_those_of_the_flash_path(stock: Find, name: str, vcpus: Vcpus) -> None:
    flash = stock(name).read_bytes()
    igvm = read_igvm(wrap(flash, vcpus))
    assert flash_of(igvm) == flash
    assert Mode.SEV in modes(igvm)
    for mode in Mode:
        if mode in modes(igvm):
            assert launch_digest(igvm, mode) == measure.launch_digest(flash, mode, vcpus)
        else:
            with pytest.raises(FirmwareError):
                measure.launch_digest(flash, mode, vcpus)


def test_the_oracle_finds_the_same(small: bytes) -> None:
    data = wrap(small, VCPUS)
    igvm, found = read_igvm(data), oracle.parse(data)
    assert set(modes(igvm)) == set(Mode)
    assert found.masks == {PLATFORMS[mode].value: igvm.platforms[PLATFORMS[mode]] for mode in Mode}
    assert found.policies == [(0xB, 1), (0xF, 2), (0x30000, 4)]
    assert launch_digest(igvm, Mode.SEV) == oracle.sev_digest(found, oracle.SEV)
    assert launch_digest(igvm, Mode.SEV_ES) == oracle.sev_digest(found, oracle.SEV_ES)
    assert launch_digest(igvm, Mode.SNP) == oracle.snp_digest(found)
    low = (1 << 32) - len(small)
    flash = [contents for gpa, _, _, _, contents in found.pages if gpa >= low]
    assert b"".join(contents or b"" for contents in flash) == small


def test_the_same_image_gives_the_same_file(small: bytes) -> None:
    data = wrap(small, VCPUS)
    assert wrap(small, VCPUS) == data
    assert with_flash(read_igvm(data), small).data == data


def test_each_page_is_there_once(small: bytes) -> None:
    """Most of the small image is erased flash."""
    pages = {small[offset : offset + 4096] for offset in range(0, len(small), 4096)}
    data = wrap(small, Vcpus(1, 0))
    igvm = read_igvm(data)
    assert len(data) - igvm.headers_end == 4096 * (len(pages) + 2)


def test_without_a_reset_vector_for_es_it_is_for_sev_alone(small: bytes) -> None:
    spoiled = small.replace(bytes.fromhex("de71f7007e1acb4f890e68c77e2fb44e"), bytes(16))
    igvm = read_igvm(wrap(spoiled, VCPUS))
    assert modes(igvm) == [Mode.SEV]


def test_the_verb(command: Command, small: bytes, tmp_path: Path) -> None:
    (tmp_path / "OVMF.fd").write_bytes(small)
    outcome = command("ovmf", "wrap", "OVMF.fd", "-o", "OVMF.igvm", "--vcpus", 2)
    lines = command("ovmf", "measure", "OVMF.fd", "--vcpus", 2).out
    size = len(wrap(small, VCPUS))
    assert outcome == (0, f"OVMF.igvm: {size:#x} bytes, vCPUs: 2\n{lines}", "")
    assert command("ovmf", "measure", "OVMF.igvm").out == lines
    assert command("ovmf", "table", "OVMF.igvm") == command("ovmf", "table", "OVMF.fd")
    shown = json.loads(command("ovmf", "igvm", "OVMF.igvm", "--json").out)
    digests = json.loads(command("ovmf", "measure", "OVMF.igvm", "--json").out)["digests"]
    assert (shown["digests"], shown["reasons"], shown["id_block"]) == (digests, {}, None)


def test_what_is_asked_for_in_vain(command: Command, small: bytes, tmp_path: Path) -> None:
    (tmp_path / "OVMF.fd").write_bytes(small)
    command("ovmf", "wrap", "OVMF.fd", "-o", "OVMF.igvm")
    again = command("ovmf", "wrap", "OVMF.igvm", "-o", "x")
    assert again == (2, "", "build.py: error: OVMF.igvm is an IGVM file already\n")
    message = "an IGVM file has what is launched, and its registers, itself"
    for option in ("--vcpus", "--cpu-signature", "--snp-features"):
        outcome = command("ovmf", "measure", "OVMF.igvm", option, "2")
        assert outcome == (2, "", f"build.py: error: {option}: {message}\n")
    (tmp_path / "odd.fd").write_bytes(small[1:])
    outcome = command("ovmf", "wrap", "odd.fd", "-o", "x")
    assert outcome == (
        1,
        "",
        f"build.py: error: odd.fd: {len(small) - 1:#x} bytes are not a number of pages of 0x1000\n",
    )
    assert not (tmp_path / "x").exists()


def test_the_helpers_registers_are_measured_behind(command: Command, small: bytes, tmp_path: Path) -> None:
    (tmp_path / "OVMF.fd").write_bytes(small)
    (tmp_path / "helper.vmsa").write_bytes(b"v" * 4096)
    more = ("--vmsa", "helper.vmsa")
    outcome = command("ovmf", "wrap", "OVMF.fd", "-o", "OVMF.igvm", *more)
    assert outcome.out.split("\n", 1)[1] == command("ovmf", "measure", "OVMF.fd", *more).out
    assert command("ovmf", "measure", "OVMF.igvm", *more).out == command("ovmf", "measure", "OVMF.fd", *more).out


@pytest.mark.parametrize(
    ("area", "finding"),
    [
        ((0x80_0000, 0xFFFF_F000, 1), "area at 0x800000 ends at 0x1007ff000, memory below the firmware at 0xfffac000"),
        ((0x80_0000, 0x1000, 0x77), "area at 0x800000 is of the unknown kind 0x77"),
    ],
)
def test_areas_that_no_snp_guest_can_have(
    command: Command, small: bytes, tmp_path: Path, area: tuple[int, int, int], finding: str
) -> None:
    data = bytearray(small)
    struct.pack_into("<III", data, small.index(b"ASEV") + 16, *area)
    (tmp_path / "OVMF.fd").write_bytes(data)
    outcome = command("ovmf", "wrap", "OVMF.fd", "-o", "OVMF.igvm")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == ["sev", "seves"]
    assert f"OVMF.fd: warning: SEV metadata: {finding}\n" in outcome.err
    assert "OVMF.igvm: no snp digest: IGVM: not for SEV_SNP, its platforms are SEV, SEV_ES\n" in outcome.err
