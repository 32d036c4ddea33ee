"""Images with the helper in them: what is in there, and that nothing else changed."""

from __future__ import annotations

import json
import shlex
import struct
from pathlib import Path
from uuid import UUID

import lief

from emulator_tests.command.conftest import Command
from emulator_tests.command.test_readme import BLOCKS
from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.small import shrink
from mh_abi import abi
from mh_builder.firmware.changes import changes
from mh_builder.firmware.driver import build_loader
from mh_builder.firmware.inject import extract, inject
from mh_builder.image.model import Image

FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")


def entries_as_qemu_reads_them(flash: bytes) -> dict[UUID, bytes]:
    """hw/i386/pc_sysfw_ovmf.c, line by line: a second reader of the table."""
    position = len(flash) - 48
    assert flash[position : position + 16] == FOOTER.bytes_le
    position -= 2
    (total,) = struct.unpack_from("<H", flash, position)
    total -= 18
    assert total > 0
    end, start = position, position - total
    found = {}
    while end >= start + 18:
        guid = UUID(bytes_le=flash[end - 16 : end])
        (length,) = struct.unpack_from("<H", flash, end - 18)
        assert 18 <= length <= end - start
        found[guid] = flash[end - length : end - 18]
        end -= length
    return found


def test_extract_gives_the_very_image(injected: Find, images: dict[str, Image], name: str) -> None:
    assert extract(injected(name).read_bytes()).blob == images["regions"].data


def test_every_entry_keeps_length_and_data(stock: Find, injected: Find, images: dict[str, Image], name: str) -> None:
    before = entries_as_qemu_reads_them(stock(name).read_bytes())
    after = entries_as_qemu_reads_them(injected(name).read_bytes())
    own = after.pop(UUID(abi.MH_FIRMWARE_ENTRY_GUID))
    assert after == before
    descriptor = abi.mh_descriptor(images["regions"].data)
    entry = abi.mh_firmware_entry(own)
    assert (entry.base, entry.memory_bytes) == (descriptor.home, descriptor.memory_bytes)
    assert (entry.ring_offset, entry.scheme) == (descriptor.ring_offset, abi.mh_scheme.MH_SCHEME_REGIONS)


def test_the_code_of_the_volume_top_file_does_not_move(stock: Find, injected: Find, name: str) -> None:
    """But for the table: 18 bytes of the displaced entry's slot, and the total length."""
    before, after = stock(name).read_bytes(), injected(name).read_bytes()
    top = next(iter(c for c in changes(before, after) if c.what.startswith("volume-top")))
    old_body = before.rindex(UUID("1ba0062e-c779-4582-8566-336ae8f78f09").bytes_le) + 24
    assert top.offset + top.size == old_body
    differing = [at for at in range(old_body, len(after)) if before[at] != after[at]]
    table = len(after) - 32 - int.from_bytes(before[-50:-48], "little")
    assert all(table <= at < len(after) - 48 for at in differing)
    assert len(differing) <= 18 + 2


def test_a_second_injection_replaces_the_first(stock: Find, images: dict[str, Image]) -> None:
    """And gives the same bytes as one into the stock image: injection is a function of image and helper."""
    source = shrink(stock("X64").read_bytes()).data
    first = inject(source, images["regions"].data)
    other = inject(first, images["alias-window"].data)
    assert extract(other).blob == images["alias-window"].data
    assert inject(other, images["regions"].data) == first


def test_changed_ranges_are_all_there_is(stock: Find, injected: Find) -> None:
    before, after = stock("4M").read_bytes(), injected("4M").read_bytes()
    patched = bytearray(before)
    for change in changes(before, after):
        patched[change.offset : change.offset + change.size] = after[change.offset : change.offset + change.size]
    assert bytes(patched) == after
    assert {change.what for change in changes(before, after)} == {
        "compressed volumes", "pad file", "volume-top file, with the GUIDed table",
    }  # fmt: skip


def test_the_loader_is_a_driver_without_relocations() -> None:
    binary = lief.PE.parse(list(build_loader()))
    assert isinstance(binary, lief.PE.Binary)
    assert lief.PE.check_layout(binary) == (True, "")
    assert binary.header.time_date_stamps == 0
    assert binary.optional_header.subsystem == lief.PE.OptionalHeader.SUBSYSTEM.EFI_BOOT_SERVICE_DRIVER
    assert not binary.has_relocations
    writable = lief.PE.Section.CHARACTERISTICS.MEM_WRITE
    assert not [section.name for section in binary.sections if section.has_characteristic(writable)]


def test_the_command_reports(stock: Find, images: dict[str, Image], command: Command, tmp_path: Path) -> None:
    source = shrink(stock("X64").read_bytes()).data
    (tmp_path / "in.fd").write_bytes(source)
    outcome = command("ovmf", "inject", "in.fd", "-o", "out.fd", "--scheme", "regions", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    descriptor = abi.mh_descriptor(images["regions"].data)
    assert report["schema"] == "sev-migration-helper/ovmf-inject/1"
    assert (report["base"], report["memory_bytes"]) == (descriptor.home, descriptor.memory_bytes)
    before, after = report["digests"]["before"], report["digests"]["after"]
    assert set(before) == set(after) == {"sev", "seves", "snp"}
    assert all(before[mode] != after[mode] for mode in before)
    expected = changes(source, (tmp_path / "out.fd").read_bytes())
    assert [(one["offset"], one["size"]) for one in report["changes"]] == [(one.offset, one.size) for one in expected]


def test_readme_commands(stock: Find, injected: Find, command: Command, tmp_path: Path) -> None:
    """And a second injection into a stock image gives the same bytes as the first."""
    for line in BLOCKS[2].splitlines():
        words = shlex.split(line)
        if words[0] == "cp":
            (tmp_path / Path(words[1]).name).write_bytes(stock("X64").read_bytes())
            continue
        assert words[:2] == [".venv/bin/python", "build.py"]
        outcome = command(*words[2:])
        assert (outcome.code, outcome.err) == (0, ""), line
    assert (tmp_path / "helper.fd").read_bytes() == injected("X64").read_bytes()
    assert (tmp_path / "regions.bin").read_bytes() == extract(injected("X64").read_bytes()).blob
