"""`ovmf table` shows what is there, known or not."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.small import patched
from mh_abi import abi
from mh_builder.firmware.table import read_table


def test_json_names_every_entry_and_area(injected: Find, command: Command) -> None:
    outcome = command("ovmf", "table", injected("X64"), "--json")
    report = json.loads(outcome.out)
    assert report["schema"] == "sev-migration-helper/ovmf-table/1"
    names = [entry["name"] for entry in report["entries"]]
    assert names == [
        "SEV-ES reset vector", "launch secret", "kernel hashes", "SEV metadata", "migration helper", "TDX metadata",
    ]  # fmt: skip
    own = report["entries"][4]
    assert own["guid"] == abi.MH_FIRMWARE_ENTRY_GUID
    assert abi.mh_firmware_entry(bytes.fromhex(own["data"])).base == 0x4000000
    assert [area["kind"] for area in report["areas"]][2:4] == ["secrets", "CPUID"]


def test_an_unknown_entry_is_shown(stock: Find, command: Command, tmp_path: Path) -> None:
    flash = stock("4M").read_bytes()
    entry = read_table(flash).entries[0]
    guid = UUID("01234567-89ab-cdef-0123-456789abcdef")
    (tmp_path / "x.fd").write_bytes(patched(flash, entry.end - 16, guid.bytes_le))
    outcome = command("ovmf", "table", "x.fd")
    assert outcome.code == 0
    assert f"{guid}  unknown" in outcome.out.splitlines()[1]
