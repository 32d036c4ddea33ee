"""`show`, `walk`, `audit` and `diff` as a user meets them: text, JSON, exit codes, bad input."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from emulator_tests.command.conftest import Command, Outcome
from emulator_tests.report.build import NX, PAGE, A, Memory, P, W
from mh_abi import abi
from mh_builder.image.elf import write_elf
from mh_builder.image.model import Image
from mh_builder.schemes import SCHEMES


@pytest.fixture
def files(tmp_path: Path, images: dict[str, Image]) -> Path:
    """`regions` and `isolated`, flat and as ELF."""
    for name in ("regions", "isolated"):
        (tmp_path / f"{name}.bin").write_bytes(images[name].data)
        (tmp_path / f"{name}.elf").write_bytes(write_elf(images[name]))
    return tmp_path


def parsed(outcome: Outcome, schema: str) -> dict[str, Any]:
    assert outcome.err == ""
    result = dict(json.loads(outcome.out))
    assert result["schema"] == f"sev-migration-helper/{schema}"
    return result


@pytest.mark.parametrize("kind", ["bin", "elf"])
def test_show_tells_what_the_linker_did(command: Command, files: Path, images: dict[str, Image], kind: str) -> None:
    image = images["regions"]
    shown = parsed(command("show", files / f"regions.{kind}", "--json"), "show/1")
    rows = {row["purpose"]: row for row in shown["regions"]}
    for section in image.sections:
        if section.size:
            row = rows[section.name]
            assert (row["va"], row["rights"]) == (hex(section.va), section.rights)
            assert row["bytes"] == section.pages * PAGE
            assert row["view"] == ("private" if section.private else "shared")
            assert row["gpa"] == hex(image.space.base + section.offset)
            assert image.space.home is not None
            assert row["main_gpa"] == row["ram_addr"] == hex(image.space.home + section.offset)
    assert sum(row["bytes"] for row in shown["regions"] if row["purpose"] == "guest RAM") == (
        image.space.options.ram_limit - image.memory_bytes
    )
    assert shown["tables"] * PAGE == image.table_bytes


def test_show_as_text_has_a_line_a_region(command: Command, files: Path, images: dict[str, Image]) -> None:
    tables = images["isolated"].table_bytes // PAGE
    outcome = command("show", files / "isolated.elf")
    assert (outcome.code, outcome.err) == (0, "")
    head, names, *rows = outcome.out.splitlines()
    assert head.startswith(f"isolated: scheme isolated; {tables} tables at CR3 0x80400000")
    assert " ".join(names.split()) == "virtual bytes rights type view page mirror GPA main GPA ram_addr purpose"
    assert rows[-1].endswith(" .ring")
    ring = rows[-1].split()
    assert ring[3:6] == ["rw-", "WB", "shared"]
    assert ring[9:11] == ["-", "-"]


def test_part_decides_the_c_bit(command: Command, files: Path) -> None:
    for part, c_bit in (("rome", 47), ("milan", 51)):
        shown = parsed(command("show", files / "regions.bin", "--part", part, "--json"), "show/1")
        assert shown["c_bit"] == c_bit
        assert int(shown["cr3"], 16) >> c_bit == 1
    moved = parsed(command("show", files / "regions.bin", "--base", "5T", "--json"), "show/1")
    assert moved["regions"][-1]["gpa"].startswith("0x5000")


def test_pictures_are_written(command: Command, files: Path) -> None:
    outcome = command("show", files / "regions.elf", "--svg", "a.svg", "--html", "b.html")
    assert outcome.code == 0
    assert (files / "a.svg").read_text().startswith("<svg ")
    page = (files / "b.html").read_text()
    assert page.count("<svg ") == 2
    assert "<script" not in page


def test_walk_names_levels_bits_and_view(command: Command, files: Path, images: dict[str, Image]) -> None:
    outcome = command("walk", files / "regions.elf", "0xffff800000001010")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["PML4", "PDPT", "PD", "PT"]
    assert all(" C" in line for line in lines[:4])
    assert lines[4] == (
        "0xffff800000001010 -> GPA 0x40000001010 (main GPA 0x4001010, ram_addr 0x4001010) r-x, private view, 4 KiB page"
    )
    place = hex(images["regions"].section(".ring").va)
    ring = parsed(command("walk", files / "regions.elf", place, "--json"), "walk/1")
    assert (ring["view"], ring["writable"], ring["executable"]) == ("shared", True, False)
    assert ring["steps"][3]["bits"] == ["P", "RW", "A", "D", "NX"]


def test_walk_to_nowhere(command: Command, files: Path) -> None:
    outcome = command("walk", files / "isolated.bin", "0xffff900000000000")
    assert outcome.code == 1
    assert outcome.out.endswith("0xffff900000000000 is not mapped: PML4 entry is not present\n")
    outcome = command("walk", files / "isolated.bin", "1<<47")
    assert outcome.code == 2
    outcome = command("walk", files / "isolated.bin", "0x800000000000")
    message = "virtual address 0x800000000000 is not canonical with 4 levels"
    assert outcome == (1, "", f"build.py: error: {message}\n")


@pytest.mark.parametrize(
    ("image", "option", "address", "reached"),
    [
        ("regions", "--gpa", "0x40000000123", ["0xffff800000000123"]),
        ("regions", "--main-gpa", "0x4000123", ["0xffff800000000123"]),
        ("regions", "--ram-addr", "0x4000123", ["0xffff800000000123"]),
        ("regions", "--ram-addr", "0x123", ["0x400000000123"]),
        ("regions", "--gpa", "0x123", ["0x400000000123"]),
        ("isolated", "--ram-addr", "0x4000123", ["0x400004000123"]),
        ("isolated", "--ram-addr", "0x1000000000", []),
        ("isolated", "--main-gpa", "0xffffffff", []),
    ],
)
def test_walk_back(command: Command, files: Path, image: str, option: str, address: str, reached: list[str]) -> None:
    outcome = command("walk", files / f"{image}.bin", option, address, "--json")
    assert outcome.code == (0 if reached else 1)
    found = parsed(outcome, "reached/1")
    assert [item["va"] for item in found["reached_from"]] == reached
    assert found["complete"]


def test_audit_of_everything_is_clean(command: Command) -> None:
    outcome = command("audit")
    assert (outcome.code, outcome.err) == (0, "")
    verdicts = [line for line in outcome.out.splitlines() if ": not checked, " not in line]
    assert [line.split(":")[0] for line in verdicts] == list(SCHEMES)
    assert all(": clean; " in line for line in verdicts)


def test_audit_of_a_bad_image(command: Command, files: Path) -> None:
    data = bytearray((files / "regions.bin").read_bytes())
    descriptor = abi.mh_descriptor(bytes(data))
    entry = (descriptor.cr3 - descriptor.link_base) + 8 * 300
    struct.pack_into("<Q", data, entry, 0x7000000 | P | W | A)
    (files / "bad.bin").write_bytes(data)
    outcome = command("audit", files / "bad.bin", files / "isolated.bin", "--json")
    assert outcome.code == 1
    bad, good = parsed(outcome, "audit/1")["audits"]
    assert (bad["clean"], good["clean"]) == (False, True)
    assert {finding["rule"] for finding in bad["findings"]} == {"table-missing", "table-shared"}


def test_audit_of_a_foreign_dump(command: Command, tmp_path: Path) -> None:
    memory = Memory()
    root = memory.chain(5, memory.table({0: 0x1000 | P | W, 1: 0x2000 | P | NX}))
    (tmp_path / "dump").write_bytes(memory.data)
    outcome = command("audit", "dump", "--cr3", hex(root), "--la57")
    assert outcome.code == 1
    first, verdict, *skipped = outcome.out.splitlines()
    assert first == "dump: w^x: 0x0 to 0x1000 -> GPA 0x1000 rwx in pages of 4 KiB is writable and executable"
    assert verdict == "dump: 1 finding; 2 mappings of 8 KiB in 5 tables, 7 of 36 rules"
    assert [line.split(": ")[1] for line in skipped] == [
        "not checked, there is no C-bit",
        "not checked, the registers of the CPU are not known",
        "not checked, only an image of ours promises it",
    ]  # fmt: skip
    shifted = command("walk", "dump", "0x1005", "--cr3", hex(root + (1 << 32)), "--la57", "--base", "4G")
    assert shifted.code == 1
    assert shifted.out.endswith("0x1005 is not mapped: PML4 entry at GPA 0x3000 is outside the dump\n")


def test_diff(command: Command, files: Path) -> None:
    same = command("diff", files / "regions.bin", files / "regions.elf")
    assert same == (0, "regions and regions: no difference\n", "")
    outcome = command("diff", files / "regions.elf", files / "isolated.elf", "--json")
    assert outcome.code == 1
    changes = parsed(outcome, "diff/1")["changes"]
    assert ["appeared"] in [change["kinds"] for change in changes if change["purpose"] == "guest RAM"]
    (code,) = [change for change in changes if change["purpose"] == ".text"]
    assert code["kinds"] == ["moved"]
    assert (code["before"]["main_gpa"], code["after"]["main_gpa"]) == ("0x4001000", None)
    text = command("diff", files / "regions.elf", files / "isolated.elf").out.splitlines()
    assert text[-4].startswith("moved: .ring 2.")
    assert [line[:3] for line in text[-3:-1]] == ["  -", "  +"]
    assert text[-1].startswith(f"regions and isolated: {len(changes)} differences: ")


BAD = {
    "missing": (None, [], 2, "FILE: No such file or directory"),
    "empty": (b"", [], 1, "FILE: 0x0 bytes that start with nothing are neither an image, an ELF file, a kdump nor"),
    "text": (b"hello there", [], 1, "FILE: 0xb bytes that start with 68656c6c6f207468 are neither"),
    "no-root": (bytes(PAGE), ["--cr3", "0x5000"], 1, "FILE: root table of CR3 0x5000: GPA 0x5000 is outside the dump"),
    "cut-root": (bytes(PAGE + 5), ["--cr3", "0x1000"], 1, "FILE: root table of CR3 0x1000: GPA 0x1000 is outside"),
    "short-elf": (b"\x7fELF\x02", [], 1, "FILE: ELF file of 0x5 bytes has no header of 0x40"),
    "elf32": (b"\x7fELF\x01\x01" + bytes(60), [], 1, "FILE: ELF file is of class 1, order 1, machine 0"),
    "c-bit": (bytes(PAGE), ["--cr3", "0", "--c-bit", "64"], 2, "C-bit 64 is not in 32 to 51"),
    "bits": (bytes(PAGE), ["--cr3", "0", "--physical-bits", "53"], 2, "MAXPHYADDR 53 is not in 32 to 52"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(command: Command, tmp_path: Path, case: str) -> None:
    contents, options, code, message = BAD[case]
    if contents is not None:
        (tmp_path / "FILE").write_bytes(contents)
    outcome = command("show", "FILE", *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(f"build.py: error: {message}")
    assert outcome.err.count("\n") == 1


def test_truncated_images(command: Command, files: Path) -> None:
    whole = {kind: (files / f"regions.{kind}").read_bytes() for kind in ("bin", "elf")}
    for kind, size in (("bin", 100), ("bin", 0x5000), ("elf", 100), ("elf", 0x300), ("elf", 0x5000)):
        (files / "cut").write_bytes(whole[kind][:size])
        outcome = command("audit", files / "cut")
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith(f"build.py: error: {files / 'cut'}: ")
        assert outcome.err.count("\n") == 1


def test_no_picture_of_a_dump(command: Command, tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(bytes(PAGE))
    outcome = command("show", "dump", "--cr3", "0", "--svg", "x.svg")
    assert outcome.code == 1
    assert "only an image of ours" in outcome.err
    assert not (tmp_path / "x.svg").exists()
