"""A real guest's page tables: the reader finds every mapping that QEMU's monitor prints, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from emulator_tests.report.linux import RAM_MIB, Snapshot, boot
from mh_builder.paging import (
    ACCESSED,
    DIRTY,
    LARGE,
    NO_EXECUTE,
    PAGE_BYTES,
    USER,
    WRITABLE,
    Geometry,
    Leaf,
    walk,
)  # fmt: skip
from mh_builder.report.mapping import Mapping
from mh_builder.report.physical import map_file, raw_dump
from mh_builder.report.reader import Reading, read_tables
from mh_cli.main import main
from mh_qemu.machine import PROGRAM

_FLAGS = (
    ("X", NO_EXECUTE), ("G", 1 << 8), ("P", LARGE), ("D", DIRTY), ("A", ACCESSED),
    ("C", 1 << 4), ("T", 1 << 3), ("U", USER), ("W", WRITABLE),
)  # fmt: skip
"""QEMU's letters in its order (target/i386/monitor.c, print_pte)."""


def read(guest: Snapshot) -> Reading:
    return read_tables(raw_dump(map_file(guest.raw)), guest.cr3, Geometry(52, None, guest.levels))


def flags(bits: int, page_bytes: int) -> str:
    """As QEMU prints a leaf; bit 7 of a 4 KiB one is PAT, which it calls P as well."""
    assert page_bytes == PAGE_BYTES or bits & LARGE
    return "".join(letter if bits & bit else "-" for letter, bit in _FLAGS)


# One test a guest: each boot takes seconds, and tests that run apart would boot their own.
@pytest.mark.parametrize("cpu", ["max", "max,la57=off"], ids=["5-level", "4-level"])
def test_reader_walker_and_audit_agree_with_qemu(
    cpu: str,
    linux_kernel: Path,
    program: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program(PROGRAM)
    guest = boot(linux_kernel, tmp_path, cpu)
    assert guest.levels == (4 if "la57" in cpu else 5)
    check_every_mapping(guest)
    check_rights(guest)
    check_walks(guest)
    check_gaps(guest)
    check_audit(guest, capsys)


def check_every_mapping(guest: Snapshot) -> None:
    found = {
        (va, gpa, flags(mapping.bits, mapping.page_bytes))
        for mapping in read(guest).mappings
        for va, gpa in mapping.pages()
    }
    assert found == guest.tlb
    assert len(found) > 5000
    assert {mapping.page_bytes for mapping in read(guest).mappings} >= {1 << 12, 1 << 21}


def ranges(mappings: Iterator[Mapping]) -> list[tuple[int, int, str]]:
    """Neighbours of equal rights as QEMU's `info mem` prints them."""
    found: list[tuple[int, int, str]] = []
    for mapping in mappings:
        rights = f"{'u' if mapping.user else '-'}r{'w' if mapping.writable else '-'}"
        if found and found[-1][1:] == (mapping.va, rights):
            found[-1] = (found[-1][0], mapping.end, rights)
        else:
            found.append((mapping.va, mapping.end, rights))
    return found


def check_rights(guest: Snapshot) -> None:
    if guest.levels == 5:
        assert not guest.mem
        return
    assert ranges(iter(read(guest).mappings)) == list(guest.mem)
    assert any(rights.startswith("u") for _, _, rights in guest.mem)


def check_walks(guest: Snapshot) -> None:
    memory = raw_dump(map_file(guest.raw))
    geometry = Geometry(52, None, guest.levels)
    for va, gpa, letters in guest.tlb:
        leaf = walk(memory.read_entry, guest.cr3, va, geometry)
        assert isinstance(leaf, Leaf)
        assert leaf.gpa == gpa
        assert flags(leaf.path[-1][2], leaf.page_bytes) == letters


def check_gaps(guest: Snapshot) -> None:
    memory = raw_dump(map_file(guest.raw))
    geometry = Geometry(52, None, guest.levels)
    mappings = read(guest).mappings
    for before, after in pairwise(mappings):
        if before.end < after.va:
            assert not isinstance(walk(memory.read_entry, guest.cr3, before.end, geometry), Leaf)
            assert not isinstance(walk(memory.read_entry, guest.cr3, after.va - PAGE_BYTES, geometry), Leaf)


def check_audit(guest: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    """The same from every file; a kernel that has started its first process has no writable code."""
    options = ["--cr3", hex(guest.cr3), *(["--la57"] if guest.levels == 5 else [])]
    results = []
    for arguments in ([str(guest.raw), *options], [str(guest.elf)], [str(guest.mapped)], [str(guest.compressed)]):
        code = main(["audit", "--json", *arguments])
        (report,) = json.loads(capsys.readouterr().out)["audits"]
        assert code == 1 - report["clean"]
        assert report["mappings"] == len(read(guest).mappings)
        results.append(report["findings"])
    # The kernel has looked as well (CONFIG_DEBUG_WX), before it started its first process.
    assert "Checked W+X mappings: passed" in guest.serial
    assert results == [[], [], [], []]
    assert guest.raw.stat().st_size == RAM_MIB << 20
