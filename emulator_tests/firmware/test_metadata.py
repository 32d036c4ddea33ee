"""What `ovmf table` finds wrong with entries and SEV metadata: the table is shown, then a line for each finding."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.small import patched
from emulator_tests.firmware.tails import FIRST_ITEM, ITEM_BYTES, Item, metadata_at, table_only, with_items
from mh_builder.firmware import guids
from mh_builder.firmware.entries import decode, finding
from mh_builder.firmware.metadata import Area, inspect_metadata, metadata_findings
from mh_builder.firmware.table import Table, read_table

TAIL_BYTES = 0x1000
SEC, SECRETS, CPUID, SVSM = 1, 2, 3, 4

FINDINGS: dict[str, tuple[list[Item], list[str]]] = {
    "unknown-kind": ([(0x800000, 0x9000, 0x21)], ["area at 0x800000 is of the unknown kind 0x21"]),
    "kind-of-zero": ([(0x800000, 0x9000, 0)], ["area at 0x800000 is of the unknown kind 0x0"]),
    "twice": (
        [(0x80D000, 0x1000, SEC)],
        ["0x80d000 to 0x80dfff is launched twice, as SEC memory and as secrets"],
    ),
    "overlap": (
        [(0x800000, 0x9000, SEC), (0x807000, 0x3000, SEC)],
        ["0x807000 to 0x808fff is launched twice, as SEC memory and as SEC memory"],
    ),
    "around": (
        [(0x7FF000, 0x100000, SEC), (0x1000, 0x1000, SEC), (0x2000, 0x1000, SECRETS), (0x801000, 0x1000, CPUID)],
        [
            "0x801000 to 0x801fff is launched twice, as SEC memory and as CPUID",
            "0x80f000 to 0x80ffff is launched twice, as SEC memory and as SVSM calling area",
            "0x810000 to 0x81ffff is launched twice, as SEC memory and as SEC memory",
        ],
    ),
    "no-size": ([(0x800000, 0, SEC)], ["area at 0x800000 (SEC memory) has no size"]),
    "no-pages": ([(0x800010, 0x1000, SEC)], ["area at 0x800010 of 0x1000 bytes is not made of pages"]),
    "long-secrets": (
        [(0x1000, 0x1000, SEC), (0x2000, 0x1000, SEC), (0x3000, 0x2000, SECRETS)],
        ["area at 0x3000 (secrets) has 0x2000 bytes, one page of 0x1000 is expected"],
    ),
    "in-the-firmware": (
        [(0xFFFFF000, 0x1000, SEC)],
        ["area at 0xfffff000 ends at 0x100000000, memory below the firmware at 0xfffff000"],
    ),
    "beyond-4g": (
        [(0xFFFFE000, 0x3000, SEC)],
        ["area at 0xffffe000 ends at 0x100001000, memory below the firmware at 0xfffff000"],
    ),
    "second-secrets": (
        [(0x1000, 0x1000, SECRETS)],
        ["0x2 areas of secrets, at most 0x1 is expected"],
    ),
    "too-much": (
        [(0x10000000, 0x10000000, SEC)],
        ["areas of 0x10016000 bytes, the limit is 0x10000000"],
    ),
}  # fmt: skip
"""First areas of an image -> what is found, behind "SEV metadata: "."""


@pytest.fixture(scope="module")
def tail(stock: Find) -> bytes:
    """Six areas, as of edk2 before MEMFD moved."""
    flash = stock("X64").read_bytes()[-TAIL_BYTES:]
    assert inspect_metadata(flash, read_table(flash)).findings == ()
    items: list[Item] = [
        (0x800000, 0x9000, SEC), (0x80A000, 0x3000, SEC), (0x80D000, 0x1000, SECRETS),
        (0x80E000, 0x1000, CPUID), (0x80F000, 0x1000, SVSM), (0x810000, 0x10000, SEC),
    ]  # fmt: skip
    start = metadata_at(flash)
    # The stock image has five: what follows them there is code that no test runs.
    flash = patched(flash, start + 4, struct.pack("<III", FIRST_ITEM + ITEM_BYTES * len(items), 1, len(items)))
    return with_items(flash, items)


def test_sound_metadata(tail: bytes) -> None:
    metadata = inspect_metadata(tail, read_table(tail))
    assert (len(metadata.areas), metadata.findings) == (6, ())


@pytest.mark.parametrize("case", FINDINGS)
def test_finding(tail: bytes, command: Command, tmp_path: Path, case: str) -> None:
    items, lines = FINDINGS[case]
    (tmp_path / "x.fd").write_bytes(with_items(tail, items))
    outcome = command("ovmf", "table", "x.fd")
    shown = outcome.out.splitlines()
    assert (outcome.code, outcome.err) == (1, "")
    assert shown[0].startswith("GUIDed table at ")
    assert shown[-len(lines) :] == [f"x.fd: SEV metadata: {line}" for line in lines]
    assert len([line for line in shown if line.startswith("x.fd: ")]) == len(lines)
    report = json.loads(command("ovmf", "table", "x.fd", "--json").out)
    assert report["findings"] == [f"SEV metadata: {line}" for line in lines]
    assert [(area["gpa"], area["size"], area["number"]) for area in report["areas"]][: len(items)] == items


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "outside": (struct.pack("<I", 0x2000), "SEV metadata: 0x2000 bytes below the end of 0x1000"),
    "too-high": (struct.pack("<I", 8), "SEV metadata: 0x8 bytes below the end of 0x1000"),
    "no-signature": (
        struct.pack("<I", 0x800),
        "SEV metadata at 0x800: signature ffffffff, version 0xffffffff",
    ),
    "short": (b"\0\0", "SEV metadata: entry at 0xfce has 0x2 bytes, 0x4 are needed"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_metadata_that_cannot_be_read(command: Command, tmp_path: Path, case: str) -> None:
    data, line = UNREADABLE[case]
    (tmp_path / "x.fd").write_bytes(table_only([(guids.SEV_METADATA, data)]))
    outcome = command("ovmf", "table", "x.fd")
    assert (outcome.code, outcome.err, outcome.out.splitlines()[2:]) == (1, "", [f"x.fd: {line}"])


@pytest.mark.parametrize("count", [0, 1, 257, 0xFFFF_FFFF])
def test_areas_that_do_not_fit(command: Command, tmp_path: Path, count: int) -> None:
    header = b"ASEV" + struct.pack("<III", min(FIRST_ITEM + count * ITEM_BYTES, 0xE00), 1, count)
    flash = patched(table_only([(guids.SEV_METADATA, struct.pack("<I", 0xF00))]), 0x100, header)
    (tmp_path / "x.fd").write_bytes(flash)
    outcome = command("ovmf", "table", "x.fd")
    found = outcome.out.splitlines()[2:]
    if count > 1:
        what = "at most 0x100 are read" if count == 257 else "areas in 0xe00 bytes, 0xf00 are there"
        assert (outcome.code, len(found)) == (1, 1)
        assert what in found[0]
    else:
        assert outcome.code == (1 if count else 0)  # a first area of 0xff bytes is no area


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(
            [guids.SEV_METADATA, guids.IGVM_METADATA, guids.TDX_METADATA, guids.SEV_ES_RESET, guids.SVSM_INFO]
        ),
        st.binary(max_size=9) | st.integers(0, 0x1100).map(lambda value: value.to_bytes(4, "little")),
    ),
    max_size=5,
    unique_by=lambda entry: entry[0],
)


@settings(max_examples=200, deadline=None)
@given(entries=ENTRIES, body=st.binary(max_size=96), at=st.integers(0, 0xF00))
def test_any_table_is_inspected(entries: list[tuple[UUID, bytes]], body: bytes, at: int) -> None:
    flash = patched(table_only(entries), at, b"ASEV" + body)
    try:
        table = read_table(flash)
    except ValueError:
        return  # the bytes fell onto the table
    found = [finding(entry, flash) or "" for entry in table.entries]
    assert not any("\n" in line for line in (*found, *inspect_metadata(flash, table).findings))
    assert all(decode(entry, flash) or finding(entry, flash) or entry.length < 22 for entry in table.entries)


WORD = st.integers(0, 0xFFFF_FFFF)


@settings(max_examples=200, deadline=None)
@given(areas=st.lists(st.builds(Area, WORD, WORD | st.integers(0, 0x3000), st.integers(0, 0x11)), max_size=12))
def test_launched_twice_is_what_a_second_count_of_the_pages_says(areas: list[Area]) -> None:
    pairs = [(one, other) for n, one in enumerate(areas) for other in areas[:n]]
    twice = any(one.size and other.size and one.gpa < other.end and other.gpa < one.end for one, other in pairs)
    assert any("launched twice" in line for line in metadata_findings(tuple(areas))) is twice


def test_no_metadata_no_finding() -> None:
    assert inspect_metadata(bytes(64), Table(0, 64, ())).findings == ()
