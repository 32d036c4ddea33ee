"""Three foreign readers of firmware: stock and injected image differ by our two files, and by nothing else."""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator_tests.firmware.conftest import Find
from mh_abi import abi

SCRIPTS = Path(sys.executable).parent


def difference(before: str, after: str) -> tuple[list[str], list[str]]:
    """(lines that went, lines that came)."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0))[2:]
    return [line[1:] for line in lines if line[0] == "-"], [line[1:] for line in lines if line[0] == "+"]


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def test_virt_fw_dump(stock: Find, injected: Find) -> None:
    before, after = (output(SCRIPTS / "virt-fw-dump", "-i", path) for path in (stock("X64"), injected("X64")))
    went, came = difference(before, after)
    files = re.findall(r"ffsfile=(\S+) size=\S+ type=(\S+)", "\n".join(came))
    assert (abi.MH_LOADER_FILE_GUID, "driver") in files
    assert (abi.MH_IMAGE_FILE_GUID, "freeform") in files
    # What else differs are the sizes of the files that grew or shrank.
    assert [what for what in files if what[0] not in (abi.MH_LOADER_FILE_GUID, abi.MH_IMAGE_FILE_GUID)] == [
        ("guid:FvMainCompact", "fw-volume"), ("guid:NotValid", "padding"), ("guid:ResetVector", "raw"),
    ]  # fmt: skip
    assert re.findall(r"ffsfile=(\S+)", "\n".join(went)) == ["guid:FvMainCompact", "guid:NotValid", "guid:ResetVector"]
    entries = [line.split()[0] for line in came if re.match(r" +[0-9a-f-]{36} size=", line)]
    assert entries == [abi.MH_FIRMWARE_ENTRY_GUID]


def test_uefi_firmware_parser(stock: Find, injected: Find) -> None:
    before, after = (output(SCRIPTS / "uefi-firmware-parser", path) for path in (stock("X64"), injected("X64")))
    guid = re.compile(r"File \d+: ([0-9a-f-]{36})")
    went = guid.findall(before)
    came = guid.findall(after)
    for own in (abi.MH_LOADER_FILE_GUID, abi.MH_IMAGE_FILE_GUID):
        came.remove(own)
    assert came == went


@pytest.mark.parametrize("name", ["X64", "4M-secboot"])
def test_uefi_extract(stock: Find, injected: Find, program: Callable[[str], str], tmp_path: Path, name: str) -> None:
    reports = []
    for number, path in enumerate((stock(name), injected(name))):
        # It writes beside the file that it reads.
        copy = tmp_path / f"{number}.fd"
        shutil.copy(path, copy)
        output(program("UEFIExtract"), copy, "report")
        reports.append(copy.with_name(f"{copy.name}.report.txt").read_text(errors="replace"))
    # Columns: type, subtype, base, size, CRC32, name.
    before, after = (
        [f"{cells[0].strip()} {cells[1].strip()} {cells[-1].strip()}" for cells in map(split, report.splitlines())]
        for report in reports
    )
    went, came = difference("\n".join(before), "\n".join(after))
    assert went == []
    files = [line for line in came if line.startswith("File")]
    assert len(files) == 2
    assert abi.MH_IMAGE_FILE_GUID.upper() in files[1]
    assert not [line for line in came if "invalid" in line.lower()]


def split(line: str) -> list[str]:
    return line.split("|")
