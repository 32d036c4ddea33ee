"""The files of an image, read by programs that are not ours."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import lief
import pytest

from mh_abi import abi
from mh_builder.helper import WIDEST_VECTOR, build_helper
from mh_builder.image.elf import write_elf
from mh_builder.image.manifest import SCHEMA
from mh_builder.image.model import Image
from mh_builder.image.output import image_files, write_files
from mh_builder.report.audit import audit
from mh_builder.report.open import Hints, open_layout
from mh_builder.schemes.space import Options

Program = Callable[[str], str]


@pytest.fixture
def elf(images: dict[str, Image], scheme: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{scheme}.elf"
    path.write_bytes(write_elf(images[scheme]))
    return path


def output_of(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def described(readelf: str, path: Path) -> str:
    """What readelf says, which has no complaint."""
    text = output_of(readelf, "-a", "-W", path)
    assert not re.search(r"warning|error|corrupt|<unknown|unrecognized", text, re.IGNORECASE)
    return text


def test_readelf_has_no_complaint(elf: Path, program: Program) -> None:
    text = described(program("readelf"), elf)
    assert "Advanced Micro Devices X86-64" in text
    assert len(re.findall(r"^  LOAD ", text, re.MULTILINE)) == 12


def test_most_vcpus(tmp_path: Path, program: Program) -> None:
    """More program headers than a page holds."""
    image = build_helper("regions", Options(vcpus=abi.MH_MAX_RINGS))
    path = tmp_path / "most.elf"
    path.write_bytes(write_elf(image))
    described(program("readelf"), path)
    binary = lief.ELF.parse(str(path))
    assert binary is not None
    contents = {section.name: bytes(section.content) for section in binary.sections}
    for section in image.sections:
        if section.stored:
            assert contents[section.name] == image.data[section.offset : section.offset + section.size]
    layout = open_layout(path.read_bytes(), "most", Hints())
    assert layout.plan is not None
    assert [part.name for part in layout.plan.sections] == [part.name for part in image.sections if part.size]
    assert not audit(layout).findings


def test_objdump_disassembles_all_of_it(elf: Path, program: Program) -> None:
    text = output_of(program("objdump"), "-d", elf)
    # 32-bit code and its GDT, which objdump takes for 64-bit code.
    text, starts = re.subn(
        r"<entry32>:\n.*?(?=<entry32_long>:)|<start_gdt>:\n.*?(?=\n\n|\Z)", "", text, flags=re.DOTALL
    )
    assert starts == (2 if elf.stem.startswith("alias") else 0)
    assert "(bad)" not in text
    assert text.count("hlt") == 2
    assert "<entry64>:" in text


def test_only_one_file_has_vex_instructions(elf: Path, images: dict[str, Image], scheme: str, program: Program) -> None:
    text = images[scheme].section(".text")
    (wide,) = (piece for piece in text.pieces if piece.name == "payload/gcm_vaes.s")
    shown = output_of(program("objdump"), "-d", "-M", "intel", elf)
    places = [int(place, 16) for place in re.findall(r"^ *([0-9a-f]+):\t[^\t]*\tv[a-z]", shown, re.MULTILINE)]
    assert len(places) > 300
    assert all(wide.offset <= place - text.va < wide.offset + wide.size for place in places)


def test_gdb_reads_symbols_and_code(elf: Path, program: Program) -> None:
    commands = ["info functions", "x/2i entry64", "info symbol gcm_seal", "info line serve"]
    arguments = [part for command in commands for part in ("-ex", command)]
    text = output_of(program("gdb"), "-nx", "-batch", *arguments, elf)
    assert "<entry64>:\tlidt " in text
    assert "<entry64+7>:\tcli" in text
    assert "gcm_seal in section .text" in text
    assert "  move_batch\n" in text


def test_lief_agrees_with_the_image(elf: Path, images: dict[str, Image], scheme: str) -> None:
    image = images[scheme]
    binary = lief.ELF.parse(str(elf))
    assert binary is not None
    sections = {section.name: section for section in binary.sections}
    for section in image.sections:
        if section.size:
            theirs = sections[section.name]
            assert (theirs.virtual_address, theirs.size) == (section.va, section.size)
            if section.stored:
                assert bytes(theirs.content) == image.data[section.offset : section.offset + section.size]
    segments = {segment.virtual_address: segment.physical_address for segment in binary.segments}
    base = image.space.base
    assert segments == {part.va: base + part.offset for part in image.sections if part.size}
    symbols = {symbol.name: symbol.value for symbol in binary.symtab_symbols if symbol.name}
    assert symbols["entry64"] == binary.entrypoint == image.symbol("entry64").value


def test_manifest_and_map_tell_the_same(images: dict[str, Image], scheme: str) -> None:
    image = images[scheme]
    files = image_files(image)
    manifest = json.loads(files[f"{scheme}.json"])
    assert manifest["schema"] == SCHEMA
    assert manifest["sha256"] == hashlib.sha256(files[f"{scheme}.bin"]).hexdigest()
    assert manifest["image_bytes"] == len(files[f"{scheme}.bin"])
    text = files[f"{scheme}.map"].decode()
    for section in manifest["sections"]:
        assert re.search(
            rf"^{section['va']} .*{section['rights']} .* {re.escape(section['name'])}$", text, re.MULTILINE
        )
    assert sum(part["bytes"] for part in manifest["ram"]) + sum(
        int(part["end"], 16) - int(part["start"], 16) for part in manifest["protected"]
    ) == int(manifest["ram_limit"], 16)


def test_map_accounts_for_every_byte_of_a_section(images: dict[str, Image]) -> None:
    for section in images["regions"].sections:
        if section.pieces:
            ends = [0]
            for piece in section.pieces:
                assert 0 <= piece.offset - ends[-1] < 64, "nothing but alignment lies between pieces"
                ends.append(piece.offset + piece.size)
            assert ends[-1] == section.size


def test_blob_stays_small(images: dict[str, Image]) -> None:
    wide = [build_helper(scheme, Options(vector_bits=WIDEST_VECTOR)) for scheme in images]
    for image in (*images.values(), *wide):
        assert len(image.data) - image.table_bytes < 32 << 10


def test_all_files_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "b").mkdir(parents=True)
    (folder / "a").write_bytes(b"old")
    with pytest.raises(IsADirectoryError, match=r"out/b'$"):
        write_files({"a": b"new", "b": b"a folder is in the way"}, folder)
    assert (folder / "a").read_bytes() == b"old"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_folders_made_for_nothing_go_again(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "deeper"
    with pytest.raises(OSError, match="x" * 300):
        write_files({"x" * 300: b""}, folder)
    assert not folder.parent.exists()


def test_full_disk_leaves_nothing_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/out/a'$"):
        write_files({"a": b"new"}, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_all_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    replace = Path.replace

    def interrupted(source: Path, target: Path) -> Path:
        signal.raise_signal(number)
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    before = signal.signal(number, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        write_files({"a": b"1", "b": b"2"}, tmp_path)
    signal.signal(number, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
