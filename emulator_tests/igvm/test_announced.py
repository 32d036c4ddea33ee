"""A helper beside the firmware, by data HOBs: what is in the file, what is refused."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from uuid import UUID

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.igvm import oracle
from emulator_tests.igvm.conftest import VCPUS
from mh_builder.firmware import guids
from mh_builder.firmware.digests import Mode
from mh_builder.firmware.driver import Finds, build_loader
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.inject import inject
from mh_builder.helper import build_helper
from mh_builder.igvm.announced import announce, announced, data_hobs
from mh_builder.igvm.firmware import flash_of, memory_of
from mh_builder.igvm.hob import DataHob
from mh_builder.igvm.insert import with_pages
from mh_builder.igvm.launch import launch_digest
from mh_builder.igvm.read import read_igvm
from mh_builder.igvm.wrap import wrap
from mh_builder.image.model import Image
from mh_builder.schemes.space import Options

HASHES = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
IGVM_METADATA = UUID("784fa70e-3176-4677-8a20-04b68699e374").bytes_le
IGVM_DATA = UUID("3dd177ff-b632-4e25-bef3-065063d55fc4").bytes_le
HOBS, PARAMETERS = 0x813000, 0x812000


def newer(flash: bytes, areas: list[tuple[int, int, int]] | None = None, version: int = 1) -> bytes:
    """The image as edk2-stable202511 and later has it: IGVM metadata, in place of an entry that nothing here needs.

    They lie in the pad file below the volume's top.
    """
    if areas is None:
        areas = [(PARAMETERS, 0x1000, 0x100), (0, 0xC0, 0x101), (0xC0, 0x10, 0x102), (HOBS, 0x1000, 0x200)]
    metadata = struct.pack("<4sIII", b"IGVM", 16 + 12 * len(areas), version, len(areas))
    metadata += b"".join(struct.pack("<III", *area) for area in areas)
    entry = flash.rindex(HASHES)
    data = bytearray(flash)
    data[entry : entry + 16] = IGVM_METADATA
    assert data[entry - 2 : entry] == b"\x1a\0"
    start = flash.rindex(guids.VOLUME_TOP.bytes_le) - 0x200
    data[entry - 10 : entry - 6] = struct.pack("<I", len(flash) - start)
    assert not data[start : start + len(metadata)].strip(b"\xff")
    data[start : start + len(metadata)] = metadata
    return bytes(data)


@pytest.fixture(scope="session")
def wrapped(small: bytes) -> bytes:
    return wrap(newer(small), VCPUS)


def test_what_the_file_brings(wrapped: bytes, images: dict[str, Image]) -> None:
    """Seen by the second reader: the HOBs, the loader, the image with its digest; the firmware is as before."""
    image = images["regions"]
    igvm = announce(read_igvm(wrapped), image.data)
    before, after = oracle.parse(wrapped), oracle.parse(igvm.data)
    brought = after.pages[-(len(after.pages) - len(before.pages) + 1) :]
    assert after.contexts == before.contexts
    kept = [entry for entry in before.pages if entry[0] != HOBS]
    assert after.pages[: len(kept)] == kept
    loader, blob = build_loader(Finds.HOB), image.data + hashlib.sha256(image.data).digest()
    start = image.space.home + image.memory_bytes if image.space.home is not None else 0
    second = start + len(loader) + -len(loader) % 4096
    memory = {gpa: contents for gpa, mask, flags, kind, contents in brought if (mask, flags, kind) == (7, 0, 0)}
    data = b"".join(memory[gpa] or b"" for gpa in sorted(memory) if gpa >= start)
    assert data.startswith(loader)
    assert data[second - start :].rstrip(b"\0") == blob.rstrip(b"\0")
    records = [(start, len(loader), 0x201, 0), (second, len(blob), 0x4D480001, 0)]
    hobs = b"".join(struct.pack("<HHI", 4, 48, 0) + IGVM_DATA + struct.pack("<QQII", *record) for record in records)
    assert memory[HOBS] == (hobs + struct.pack("<HHI", 0xFFFF, 8, 0)).ljust(4096, b"\0")
    assert launch_digest(igvm, Mode.SNP) == oracle.snp_digest(after)
    assert flash_of(igvm) == flash_of(read_igvm(wrapped))
    assert [gpa for gpa, _ in memory_of(igvm)] == [HOBS, start]


def test_in_and_out(command: Command, wrapped: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.igvm").write_bytes(wrapped)
    outcome = command("ovmf", "inject", "in.igvm", "-o", "out.igvm", "--scheme", "alias-gpa", "--by", "hob", "--json")
    assert outcome.err == ""
    report = json.loads(outcome.out)
    assert (outcome.code, report["changes"]) == (0, [])
    start = report["base"] + report["memory_bytes"]
    assert next((hob["address"], hob["data_type"]) for hob in report["data_hobs"]) == (start, 0x201)
    assert json.loads(command("ovmf", "measure", "out.igvm", "--json").out)["digests"] == report["digests"]["after"]
    command("build", "--scheme", "alias-gpa", "-o", ".")
    assert command("ovmf", "extract", "out.igvm", "-o", "again.bin").code == 0
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "alias-gpa.bin").read_bytes()
    text = command("ovmf", "inject", "in.igvm", "-o", "text.igvm", "--scheme", "alias-gpa", "--by", "hob").out
    assert f"data HOB {start:#x} to " in text
    hobs = [line for line in text.splitlines() if line.startswith("data HOB")]
    assert [line for line in command("ovmf", "igvm", "text.igvm").out.splitlines() if "HOB" in line] == hobs
    assert json.loads(command("ovmf", "igvm", "text.igvm", "--json").out)["data_hobs"] == report["data_hobs"]
    assert len(hobs) == 2
    assert (tmp_path / "text.igvm").read_bytes() == (tmp_path / "out.igvm").read_bytes()


def refused(command: Command, name: str, *more: str) -> str:
    outcome = command("ovmf", "inject", name, "-o", "x", "--scheme", "alias-gpa", *more)
    assert (outcome.code, outcome.out) == (1, "")
    assert not Path("x").exists()
    return outcome.err.removeprefix(f"build.py: error: {name}: ").rstrip("\n")


def test_one_helper_alone(
    command: Command, small: bytes, wrapped: bytes, images: dict[str, Image], tmp_path: Path
) -> None:
    blob = images["alias-gpa"].data
    (tmp_path / "hob.igvm").write_bytes(announce(read_igvm(wrapped), blob).data)
    assert refused(command, "hob.igvm") == "IGVM: a data HOB announces an image of the migration helper already"
    message = (
        f"IGVM: a data HOB of type 0x201 for {data_hobs(announce(read_igvm(wrapped), blob))[0].address:#x} is there"
    )
    assert refused(command, "hob.igvm", "--by", "hob").startswith(
        f"{message} already, and the firmware starts one program"
    )
    (tmp_path / "volume.igvm").write_bytes(wrap(newer(inject(small, blob)), VCPUS))
    expected = "GUIDed table: an image of the migration helper is in the firmware already"
    assert refused(command, "volume.igvm", "--by", "hob") == expected


def test_a_flash_image_brings_nothing(command: Command, small: bytes, tmp_path: Path) -> None:
    (tmp_path / "OVMF.fd").write_bytes(newer(small))
    outcome = command("ovmf", "inject", "OVMF.fd", "-o", "x", "--scheme", "regions", "--by", "hob")
    message = "no IGVM file, and nothing else brings data HOBs: make one with `ovmf wrap`"
    assert outcome == (1, "", f"build.py: error: OVMF.fd: {message}\n")


def test_a_home_in_the_firmwares_memory(wrapped: bytes) -> None:
    image = build_helper("alias-gpa", Options(home=2 << 20, ram_limit=1 << 30))
    with pytest.raises(
        FirmwareError, match=r"^IGVM: pages at 0x[0-9a-f]+ are the firmware's own, which ends at 0x2000000$"
    ):
        announce(read_igvm(wrapped), image.data)


AREAS: dict[str, tuple[list[tuple[int, int, int]] | None, int, str]] = {
    "version": (None, 2, r"IGVM metadata at 0x[0-9a-f]+: signature 4947564d, version 0x2"),
    "no-hobs": (
        [(PARAMETERS, 0x1000, 0x100)],
        1,
        r"IGVM metadata: none of 0x1 areas is for data HOBs: the firmware reads none",
    ),
    "odd": (
        [(HOBS + 8, 0x1000, 0x200)],
        1,
        r"IGVM metadata: none of 0x1 areas is for data HOBs: the firmware reads none",
    ),
}


@pytest.mark.parametrize("case", list(AREAS))
def test_firmware_that_reads_no_hobs(small: bytes, images: dict[str, Image], case: str) -> None:
    areas, version, message = AREAS[case]
    igvm = read_igvm(wrap(newer(small, areas, version), VCPUS))
    with pytest.raises(FirmwareError, match=f"^{message}$"):
        announce(igvm, images["alias-gpa"].data)
    assert announced(igvm) is None


def test_older_firmware(small: bytes, images: dict[str, Image]) -> None:
    with pytest.raises(FirmwareError, match=r"^no IGVM metadata in the GUIDed table: the firmware reads no data HOBs$"):
        announce(read_igvm(wrap(small, VCPUS)), images["alias-gpa"].data)


def hob_page(*hobs: tuple[int, int, int]) -> bytes:
    records = (struct.pack("<HHI", 4, 48, 0) + IGVM_DATA + struct.pack("<QQII", *hob, 0) for hob in hobs)
    return b"".join(records).ljust(4096, b"\0")


def test_data_of_others_stay(wrapped: bytes, images: dict[str, Image]) -> None:
    """Keys for Secure Boot, as igvm-update brings them; their page is written anew, with ours behind."""
    keys = [DataHob(0x2000000, 0x1000, 0x100), DataHob(0x2001000, 0x234, 0x102)]
    page = hob_page(*((hob.address, hob.length, hob.data_type) for hob in keys))
    igvm = with_pages(read_igvm(wrapped), [(HOBS, page), (0x2000000, b"P" * 4096), (0x2001000, b"D" * 4096)])
    assert data_hobs(igvm) == keys
    both = announce(igvm, images["alias-gpa"].data)
    assert data_hobs(both)[:2] == keys
    assert dict(memory_of(both))[0x2000000] == b"P" * 4096 + b"D" * 4096
    assert announced(both) == images["alias-gpa"].data


def test_another_program(wrapped: bytes, images: dict[str, Image]) -> None:
    for kind in (0x200, 0x201):
        igvm = with_pages(read_igvm(wrapped), [(HOBS, hob_page((0x2000000, 0x1000, kind)))])
        with pytest.raises(FirmwareError, match=f"a data HOB of type {kind:#x} for 0x2000000 is there already"):
            announce(igvm, images["alias-gpa"].data)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (1 << 63, r"IGVM: data at 0x2000000 of 0x8000000000000000 bytes, the file has 0x[0-9a-f]+"),
        (0, r"IGVM: SHA-256 of the helper's image is [0-9a-f]{64}, behind it is "),
        (0x1000, r"IGVM: SHA-256 of the helper's image is [0-9a-f]{64}, behind it is 0{64}"),
    ],
)
def test_hostile_data(wrapped: bytes, length: int, message: str) -> None:
    igvm = with_pages(read_igvm(wrapped), [(HOBS, hob_page((0x2000000, length, 0x4D480001)))])
    with pytest.raises(FirmwareError, match=f"^{message}$"):
        announced(igvm)


def test_memory_that_is_taken(wrapped: bytes) -> None:
    igvm = with_pages(read_igvm(wrapped), [(0x3000000, bytes(4096))])
    with pytest.raises(
        FirmwareError, match=r"^IGVM: PAGE_DATA at 0x[0-9a-f]+: memory at 0x3000000 is filled by PAGE_DATA"
    ):
        with_pages(igvm, [(0x3000000, bytes(4096))])


def test_data_that_cannot_be_moved() -> None:
    """The bytes of a header that nobody knows may say where in the file something is."""
    file = oracle.assemble([oracle.platform(oracle.SEV, 1), oracle.header(0x8000_0123, bytes(8))], bytes(4096))
    with pytest.raises(FirmwareError, match=r"^IGVM: type 0x80000123 at 0x30 is unknown: its data cannot be moved$"):
        with_pages(read_igvm(file), [(0x1000, bytes(4096))])


def test_offsets_move_with_the_data() -> None:
    """Of pages, registers, parameters and documents."""
    heading = [oracle.platform(oracle.SEV_ES, 1)]
    sizes = [
        *heading,
        oracle.header(0x104, bytes(16)),
        oracle.header(0x301, bytes(16)),
        oracle.page(0),
        oracle.context(0, 1, 0),
    ]
    first = oracle.data_offset(sizes)
    headers = [
        *heading, oracle.header(0x104, struct.pack("<IIII", 1, first, 9, 0)),
        oracle.header(0x301, struct.pack("<QII", 4096, 5, first + 4096)),
        oracle.page(0x1000, 1, first + 8192), oracle.context(0xFFFF_FFFF_F000, 1, first + 12288),
    ]  # fmt: skip
    data = b"".join(letter * 4096 for letter in (b"d", b"p", b"x", b"r"))
    moved = with_pages(read_igvm(oracle.assemble(headers, data)), [(0x9000, b"n" * 4096)]).data
    found = oracle.parse(moved)
    assert [contents for *_, contents in found.pages] == [b"x" * 4096, b"n" * 4096]
    assert [contents for *_, contents in found.contexts] == [b"r" * 4096]
    document, area = (int.from_bytes(moved[at : at + 4], "little") for at in (48 + 8 + 4, 48 + 24 + 8 + 12))
    assert (moved[document : document + 9], moved[area : area + 4096]) == (b"d" * 9, b"p" * 4096)
