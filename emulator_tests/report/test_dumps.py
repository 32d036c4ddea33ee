"""Dumps as people have them: nothing is clean over nothing, and what cannot be read is named."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator_tests.report.build import NX, PAGE, PCD, A, D, Memory, P, U, W
from emulator_tests.report.kdumps import LZO, flattened, kdump
from emulator_tests.report.test_memory import core
from mh_builder.report.kdump import KdumpMemory
from mh_builder.report.physical import DumpError, MemoryGapError
from mh_cli.main import main

C = 1 << 51
LONG_MODE = 0x20


def ran(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def note(cr3: int, cr0: int = 0x8001_0033, cr4: int = LONG_MODE) -> bytes:
    registers = bytearray(440)
    struct.pack_into("<QQQQQ", registers, 392, cr0, 0, 0, cr3, cr4)
    return struct.pack("<III", 5, len(registers), 0) + b"QEMU\0\0\0\0" + registers


def tables(*entries: int, pointer: int = P | W) -> tuple[Memory, int]:
    """Tables with these leaves from virtual address 0."""
    memory = Memory()
    memory.table()
    root = memory.chain(4, memory.table(dict(enumerate(entries))), pointer)
    return memory, root


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "dump"
    path.write_bytes(data)
    return path


def test_a_root_of_zeros_maps_nothing_and_is_not_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, bytes(16 * PAGE))
    code, out, _ = ran(capsys, "audit", path, "--cr3", "0x3000")
    assert code == 1
    assert out.startswith("dump: mapped: nothing is mapped: 1 tables at CR3 0x3000\n")
    code, out, err = ran(capsys, "show", path, "--cr3", "0x3000")
    assert code == 0
    assert err == f"{path}: warning: nothing is mapped by the tables at CR3 0x3000\n"


def test_what_a_core_spans_and_does_not_store_is_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `dump-guest-memory -p` spans all RAM with what it has stored of its first 640 KiB."""
    memory, root = tables(0x5000 | P)
    path = write(tmp_path, core([(0, bytes(memory.data[:PAGE]), 1 << 28)], note(root)))
    for verb in ("audit", "show"):
        code, out, err = ran(capsys, verb, path)
        assert (code, out) == (1, "")
        assert err == (
            f"build.py: error: {path}: root table of CR3 {root:#x}: GPA {root:#x} is outside the dump, "
            "which stores 0x1000 bytes\n"
        )


def test_segments_of_the_same_memory_are_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, root = tables(0x5000 | P)
    data = bytes(memory.data)
    segments = [(0, data, len(data)), (PAGE, data[PAGE : 3 * PAGE], 2 * PAGE), (2 * PAGE, data[2 * PAGE :] + b"y", 0)]
    path = write(tmp_path, core(segments, note(root)))
    code, out, _ = ran(capsys, "show", path, "--json")
    assert code == 0
    assert [region["gpa"] for region in json.loads(out)["regions"]] == ["0x5000"]


def test_guest_with_a_c_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pointers without C-bit, code and a table that the host sees, devices as private: all are named."""
    memory = Memory()
    memory.table()
    pt = memory.table({0: 0x5000 | P | C, 1: 0x6000 | P | W | NX | C, 2: 0x7000 | P})
    memory.set(pt, 3, pt | P | W | NX)
    memory.set(pt, 4, 0xFEE0_0000 | P | W | NX | C | PCD)
    root = memory.chain(4, pt, P | W)
    path = write(tmp_path, core([(0, bytes(memory.data), len(memory.data))], note(root)))
    code, out, _ = ran(capsys, "audit", path, "--part", "milan")
    found = [line.split(": ")[1] for line in out.splitlines() if line.startswith("dump: ")]
    assert code == 1
    assert [found.count(rule) for rule in ("table-shared", "code-shared", "table-exposed", "device-private")] == [
        3, 1, 1, 1,
    ]  # fmt: skip
    code, _, err = ran(capsys, "show", path, "--part", "milan")
    assert err == f"{path}: warning: 3 entries are defective: see `audit`\n"


def test_registers_are_said_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, root = tables(0x5000 | P)
    path = write(tmp_path, core([(0, bytes(memory.data), len(memory.data))], note(root, cr0=0x8000_0033)))
    code, out, _ = ran(capsys, "audit", path)
    assert code == 1
    assert "dump: write-protect: CR0 0x80000033 is without WP" in out
    assert "dump: CR0 0x80000033, CR4 0x20: on none, off WP SMEP SMAP PKE LA57, NXE not known" in out


def test_rights_that_registers_make_less_are_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without SMEP, SMAP and PKE, in a guest with user mode; with them nothing is said."""
    memory, root = tables(0x5000 | P | U, 0x6000 | P | W | U | NX | 3 << 59, pointer=P | W | U)
    segments = [(0, bytes(memory.data), len(memory.data))]
    path = write(tmp_path, core(segments, note(root)))
    code, out, _ = ran(capsys, "audit", path)
    assert code == 0
    assert [line for line in out.splitlines() if "note: " in line] == [
        "dump: note: user-executable: CR4 0x20 is without SMEP: of user mode 1 mapping from 0x0 on can be executed",
        "dump: note: user-reachable: CR4 0x20 is without SMAP: of user mode 2 mappings from 0x0 on can be reached",
        "dump: note: keys-ignored: CR4 0x20 is without PKE: the keys of 1 mapping from 0x1000 on mean nothing",
    ]
    sarif = tmp_path / "found.sarif"
    _, out, _ = ran(capsys, "audit", path, "--json", "--sarif", sarif)
    (report,) = json.loads(out)["audits"]
    (log,) = json.loads(sarif.read_text())["runs"]
    assert (report["clean"], report["findings"]) == (True, [])
    assert [(one["ruleId"], one["level"]) for one in log["results"]] == [(n["rule"], "note") for n in report["notes"]]
    path = write(tmp_path, core(segments, note(root, cr4=LONG_MODE | 1 << 20 | 1 << 21 | 1 << 22)))
    _, out, _ = ran(capsys, "audit", path)
    assert "note: " not in out


def test_efer_is_not_in_a_dump_and_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, root = tables(0x5000 | P)
    path = write(tmp_path, core([(0, bytes(memory.data), len(memory.data))], note(root)))
    _, out, _ = ran(capsys, "audit", path)
    assert "dump: not checked, EFER is not in the dump; give it with --efer: no-execute\n" in out
    code, out, _ = ran(capsys, "audit", path, "--efer", "0x500")
    assert code == 1
    assert "dump: no-execute: EFER 0x500 is without NXE: entries with NX fault" in out
    assert ran(capsys, "audit", path, "--efer", "0xd00")[0] == 0
    code, _, err = ran(capsys, "audit", write(tmp_path, bytes(memory.data)), "--cr3", hex(root), "--efer", "0xd00")
    assert (code, err) == (1, f"build.py: error: {path}: EFER 0xd00: the dump has the registers of no CPU\n")


def test_every_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, first = tables(0x5000 | P)
    second = memory.chain(4, memory.table({0: 0x5000 | P | W, 1: 0x6000 | P | W | U | NX}), P | W | U)
    notes = note(first) + note(second) + note(first)
    path = write(tmp_path, core([(0, bytes(memory.data), len(memory.data))], notes))
    _, out, _ = ran(capsys, "show", path, "--cpu", "1")
    assert [line.split(",")[0] for line in out.splitlines()[1:4]] == [
        f"CPU 0: CR3 {first:#x}", f"CPU 1 (shown): CR3 {second:#x}", f"CPU 2: CR3 {first:#x}",
    ]  # fmt: skip
    code, out, _ = ran(capsys, "audit", path, "--all-cpus")
    assert code == 1
    assert "dump CPU 0: clean" in out
    assert "dump CPU 1: w^x: " in out
    assert "dump CPU 1: 2 differences from dump CPU 0: see `diff --cpu`" in out
    assert "dump CPU 2" not in out
    code, out, err = ran(capsys, "audit", path, "--cpu", "3")
    assert (code, out, err) == (1, "", f"build.py: error: {path}: CPU 3: the dump has the registers of 3\n")


def test_cpus_that_were_not_started_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, root = tables(0x5000 | P)
    notes = note(0, cr0=0x6000_0010, cr4=0) + note(root) + note(0, cr0=0x6000_0010, cr4=0)
    path = write(tmp_path, core([(0, bytes(memory.data), len(memory.data))], notes))
    code, out, _ = ran(capsys, "audit", path, "--all-cpus")
    assert code == 0
    assert "dump CPU 1: clean" in out
    assert out.endswith("dump CPU 1: not audited, no tables that are read: CPU 0, 2\n")
    code, out, err = ran(capsys, "audit", path)
    assert (code, out) == (1, "")
    assert "the CPU is in no paging: CR0 0x60000010" in err
    path = write(tmp_path, core([(0, bytes(memory.data), len(memory.data))], note(0, cr0=0x6000_0010)))
    assert "the CPU is in no paging: CR0 0x60000010" in ran(capsys, "audit", path, "--all-cpus")[2]


@pytest.mark.parametrize(
    ("cr0", "cr4", "what"),
    [(0x33, LONG_MODE, "no paging"), (0x8001_0033, 0, "paging without PAE")],
)
def test_modes_without_long_tables_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cr0: int, cr4: int, what: str
) -> None:
    memory, root = tables(0x5000 | P)
    path = write(tmp_path, core([(0, bytes(memory.data), len(memory.data))], note(root, cr0, cr4)))
    code, out, err = ran(capsys, "show", path)
    assert (code, out) == (1, "")
    assert f"the CPU is in {what}: CR0 {cr0:#x}, CR4 {cr4:#x}; read are tables of 8-byte entries" in err


def pages_of(memory: Memory) -> dict[int, bytes]:
    data = bytes(memory.data)
    return {at // PAGE: data[at : at + PAGE] for at in range(0, len(data), PAGE)}


@pytest.mark.parametrize("pack", [bytes, flattened], ids=["plain", "flattened"])
def test_kdump(tmp_path: Path, capsys: pytest.CaptureFixture[str], pack: type[bytes]) -> None:
    memory, root = tables(0x5000 | P, 0x12345000 | P | W | NX)
    path = write(tmp_path, pack(kdump(pages_of(memory), note(root))))
    code, out, err = ran(capsys, "show", path, "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown["cr3"] == hex(root)
    assert [region["gpa"] for region in shown["regions"]] == ["0x5000", "0x12345000"]
    code, out, _ = ran(capsys, "audit", path)
    assert "clean" in out
    assert code == 0


def test_pages_of_a_kdump_by_number() -> None:
    pages = {number: bytes([number % 251]) * PAGE for number in (0, 1, 7, 8, 40_000, 70_001)}
    memory = KdumpMemory(kdump(pages))
    for number, data in pages.items():
        assert memory.read_table(number * PAGE) == data
    assert memory.read(8 * PAGE - 2, 4) == b"\7\7\10\10"
    assert memory.size == len(pages) * PAGE
    for number in (2, 39_999, 70_002, 1 << 40):
        with pytest.raises(MemoryGapError):
            memory.read(number * PAGE, 8)


def test_pieces_of_a_flattened_file_cost_little() -> None:
    """A dump of a large guest has millions of them."""
    data = flattened(kdump({number: random.Random(number).randbytes(PAGE) for number in range(100)}), piece=16)
    tracemalloc.start()
    try:
        memory = KdumpMemory(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory.read_table(7 * PAGE) == random.Random(7).randbytes(PAGE)
    assert peak < 4 * len(data)


def test_kdump_of_another_compression_is_named() -> None:
    memory = KdumpMemory(kdump({3: bytes(PAGE)}, flags=LZO))
    with pytest.raises(DumpError, match="page at GPA 0x3000 is compressed by lzo, read is zlib"):
        memory.read_table(3 * PAGE)


@given(st.binary(max_size=64), st.integers(0, 6000), st.booleans())
def test_damaged_kdumps_end_in_a_word(patch: bytes, at: int, flat: bool) -> None:
    data = bytearray(kdump({0: bytes(PAGE), 2: bytes(range(256)) * 16}, note(0x2000)))
    data = bytearray(flattened(bytes(data))) if flat else data
    data[at : at + len(patch)] = patch
    try:
        memory = KdumpMemory(bytes(data))
        memory.cpus()
        memory.read_table(2 * PAGE)
    except DumpError:
        pass


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"LibvirtQemudSave", "a saved guest of libvirt"),
        (b"QFI\xfb", "a disk image in qcow2"),
        (b"QEVM", "a migration stream of QEMU"),
        (b"PAGEDU64", "a crash dump of Windows"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
    ],
)
def test_other_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], start: bytes, what: str) -> None:
    path = write(tmp_path, start.ljust(2 * PAGE, b"\0"))
    for words in (("show", path), ("audit", path, "--cr3", "0x1000")):
        assert ran(capsys, *words) == (1, "", f"build.py: error: {path}: {what}: neither an image nor a memory dump\n")


def test_rules_can_be_listed_and_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, root = tables(0x5000 | P | W)
    path = write(tmp_path, bytes(memory.data))
    options = ("audit", path, "--cr3", hex(root))
    assert ran(capsys, *options, "--only", "w^x")[0] == 1
    assert ran(capsys, *options, "--only", "loop")[0] == 0
    assert ran(capsys, *options, "--ignore", "w^x")[0] == 0
    code, out, _ = ran(capsys, "audit", "--rules")
    assert code == 0
    assert "w^x              nothing is writable and executable: who can write there can execute\n" in out


def test_marks_of_a_dump_count_where_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two dumps of one guest differ in A and D at once; which is noise, until somebody looks for it."""
    paths = []
    for name, marks in (("old", A), ("new", A | D | 1 << 9 | 1 << 57)):
        memory, root = tables(0x5000 | P | NX | A, 0x6000 | P | NX | marks, 0x7000 | P | NX | A)
        paths.append(tmp_path / name)
        paths[-1].write_bytes(core([(0, bytes(memory.data), len(memory.data))], note(root)))
    code, out, _ = ran(capsys, "diff", *paths)
    assert (code, out) == (0, "old and new: no difference\n")
    code, out, _ = ran(capsys, "diff", *paths, "--marks")
    assert code == 1
    assert out.splitlines() == [
        "dirty and available bits: 4 KiB",
        "  - 0x1000 to 0x2000 -> GPA 0x6000 r-- not dirty 4 KiB pages",
        "  + 0x1000 to 0x2000 -> GPA 0x6000 r-- AVL9 AVL57 4 KiB pages",
        "old and new: 1 difference: 1 dirty, 1 available bits",
    ]

    def shown(*options: str) -> list[tuple[object, ...]]:
        out = ran(capsys, "show", paths[1], "--json", *options)[1]
        wanted = ("bytes", "accessed", "dirty", "available")
        return [tuple(region[name] for name in wanted) for region in json.loads(out)["regions"]]

    assert shown() == [(3 * PAGE, None, None, None)]
    assert shown("--marks") == [(PAGE, True, False, []), (PAGE, True, True, [9, 57]), (PAGE, True, False, [])]


def test_regions_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, root = tables(0x5000 | P, 0x9000 | P | W | NX, 0xB000 | P | NX | PCD)
    path = write(tmp_path, bytes(memory.data))

    def shown(*options: str) -> list[str]:
        out = ran(capsys, "show", path, "--cr3", hex(root), "--json", *options)[1]
        return [region["gpa"] for region in json.loads(out)["regions"]]

    assert shown() == ["0x5000", "0x9000", "0xb000"]
    assert shown("--writable") == ["0x9000"]
    assert shown("--executable") == ["0x5000"]
    assert shown("--after", "0x1000") == ["0x9000", "0xb000"]
    assert shown("--type", "pat2") == ["0xb000"]
    assert shown("--type", "UC-", "--pat", "linux") == ["0xb000"]
    code, _, err = ran(capsys, "show", path, "--cr3", hex(root), "--shared")
    assert code == 2
    assert "--shared: there is no C-bit" in err
