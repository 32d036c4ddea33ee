"""`ovmf table` shows what is there, known or not."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.small import shrink
from emulator_tests.firmware.tails import table_only, with_guid
from emulator_tests.firmware.test_inject import entries_as_qemu_reads_them
from mh_abi import abi
from mh_builder.firmware import guids
from mh_builder.firmware.inject import inject
from mh_builder.firmware.table import read_table
from mh_builder.image.model import Image

FOREIGN = UUID("01234567-89ab-cdef-0123-456789abcdef")


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


ENTRIES = [
    (guids.SEV_ES_RESET, bytes.fromhex("04b08000"), "SEV-ES reset vector  cs_base 0x800000, ip 0xb004"),
    (guids.LAUNCH_SECRET, bytes.fromhex("0010810000080000"), "launch secret  gpa 0x811000, size 0x800"),
    (guids.KERNEL_HASHES, bytes.fromhex("0018810000040000"), "kernel hashes  gpa 0x811800, size 0x400"),
    (guids.TDX_METADATA, bytes.fromhex("00020000"), "TDX metadata  offset 0xe00"),
    (guids.SVSM_INFO, bytes.fromhex("00030000"), "SVSM info  offset 0x300"),
    (FOREIGN, bytes(17), "unknown  00000000000000000000000000000000..."),
]


def test_public_entries_are_decoded_and_others_shown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "x.fd").write_bytes(table_only([(guid, data) for guid, data, _ in ENTRIES]))
    outcome = command("ovmf", "table", "x.fd")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()[1:]
    assert [line.split(maxsplit=2)[2] for line in lines] == [f"{guid}  {text}" for guid, _, text in ENTRIES]


def test_entries_that_cannot_be_decoded(command: Command, tmp_path: Path) -> None:
    bad = [(guids.TDX_METADATA, bytes.fromhex("01100000")), (guids.KERNEL_HASHES, b"1234567"), (guids.SVSM_INFO, b"")]
    (tmp_path / "x.fd").write_bytes(table_only(bad))
    outcome = command("ovmf", "table", "x.fd")
    where = "x.fd: GUIDed table: entry at"
    assert outcome.code == 1
    assert outcome.out.splitlines()[4:] == [
        f"{where} 0xfce (TDX metadata) names offset -0x1 of 0x1000 bytes",
        f"{where} 0xfb8 (kernel hashes) has 0x7 bytes of data, 0x8 are expected",
        f"{where} 0xf9f (SVSM info) has 0x0 bytes of data, 0x4 are expected",
    ]


@pytest.mark.parametrize("number", [1, -1])
def test_an_unknown_entry_stays_as_it_is(stock: Find, images: dict[str, Image], number: int) -> None:
    """Also where it is the one that ours displaces."""
    flash = shrink(stock("X64").read_bytes()).data
    number %= len(read_table(flash).entries)
    source = with_guid(flash, number, FOREIGN)
    after = entries_as_qemu_reads_them(inject(source, images["alias-gpa"].data))
    own = after.pop(UUID(abi.MH_FIRMWARE_ENTRY_GUID))
    assert after == entries_as_qemu_reads_them(source)
    assert (FOREIGN in after, len(own) > 0) == (True, True)
