"""Launch digests against sev-snp-measure's own command."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmsa import VMSA

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from mh_builder.firmware import guids
from mh_builder.firmware.metadata import read_metadata
from mh_builder.firmware.table import read_table
from mh_builder.helper import build_helper
from mh_builder.image.vmsa import write_vmsa
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start


def theirs(path: Path, mode: str, vcpus: int, signature: int) -> str:
    script = Path(sys.executable).with_name("sev-snp-measure")
    command = [str(script), "--mode", mode, "--vcpus", str(vcpus), "--vcpu-sig", hex(signature), "--ovmf", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return str(done.stdout).strip()


@pytest.mark.parametrize(("mode", "vcpus", "part"), [("sev", 1, "milan"), ("seves", 3, "genoa"), ("snp", 2, "milan")])
def test_digest_equals_theirs(injected: Find, command: Command, mode: str, vcpus: int, part: str) -> None:
    path = injected("X64")
    outcome = command("ovmf", "measure", path, "--mode", mode, "--vcpus", vcpus, "--part", part, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["digests"] == {mode: theirs(path, mode, vcpus, PARTS[part].signature)}


def test_the_helpers_vcpu_is_measured_behind_the_firmwares(injected: Find, command: Command, tmp_path: Path) -> None:
    image = build_helper("regions", Options(start=Start.ES, c_bit=51))
    page = write_vmsa(image, image.space.base, 51)
    (tmp_path / "helper.vmsa").write_bytes(page)
    path = injected("X64")
    outcome = command("ovmf", "measure", path, "--mode", "seves", "--vmsa", "helper.vmsa")
    main = next(VMSA(SevMode.SEV_ES, 0x80B004, 0x00A00F11, 0).pages(1))
    assert outcome.out == f"seves  {hashlib.sha256(path.read_bytes() + main + page).hexdigest()}\n"


def test_another_cpu_model(injected: Find, command: Command) -> None:
    """QEMU's models have a stepping of their own."""
    path = injected("X64")
    outcome = command("ovmf", "measure", path, "--mode", "seves", "--cpu-signature", "0xa10f10")
    assert outcome.out.split()[1] == theirs(path, "seves", 1, 0xA10F10)


def test_without_metadata_there_is_no_snp_guest(stock: Find, command: Command, tmp_path: Path) -> None:
    """Metadata of no areas, as of an image without any."""
    data = bytearray(stock("X64").read_bytes())
    struct.pack_into("<III", data, data.index(b"ASEV") + 4, 16, 1, 0)
    path = tmp_path / "without.fd"
    path.write_bytes(data)
    outcome = command("ovmf", "measure", path)
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["sev", "seves"]
    refused = command("ovmf", "measure", path, "--mode", "snp")
    message = "no SEV metadata in the GUIDed table: it cannot be launched as an SNP guest"
    assert refused == (1, "", f"build.py: error: {path}: {message}\n")


def test_table_without_the_entry_has_no_areas(stock: Find) -> None:
    flash = stock("X64").read_bytes()
    table = read_table(flash)
    assert read_metadata(flash, table)
    others = tuple(entry for entry in table.entries if entry.guid != guids.SEV_METADATA)
    assert read_metadata(flash, replace(table, entries=others)) == ()
