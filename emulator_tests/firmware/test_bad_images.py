"""Images that cannot be read or changed: one line that says what and where; nothing is written."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.firmware import wrong
from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.small import CARRIER_BYTES, Small, patched, shrink, with_file
from mh_builder.firmware.compressed import decompress
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.inject import extract, inject
from mh_builder.firmware.table import read_table
from mh_builder.image.model import Image

FOREIGN = UUID("01234567-89ab-cdef-0123-456789abcdef")


@pytest.fixture(scope="module")
def small(stock: Find) -> Small:
    return shrink(stock("X64").read_bytes())


def test_the_small_image_takes_the_helper(small: Small, images: dict[str, Image]) -> None:
    """What is refused below is refused for what was done to it."""
    blob = images["alias-gpa"].data
    assert extract(inject(small.data, blob)).blob == blob


def without_pad(small: Small) -> bytes:
    """The pad file becomes a file of another type."""
    header = bytearray(small.data[small.pad : small.pad + 24])
    header[16], header[18] = header[16] + 0xF0 - 0x01 & 0xFF, 0x01
    return patched(small.data, small.pad, bytes(header))


def used_pad(small: Small) -> bytes:
    return patched(small.data, small.top - 4, b"used")


BAD: dict[str, tuple[Callable[[Small], bytes], str]] = {
    "empty": (lambda _: b"", "not an OVMF image: 0x0 bytes have no room for a GUIDed table"),
    "zeros": (lambda _: bytes(0x10000), "not an OVMF image: no GUIDed table ends at 0xffe0"),
    "no-compressed-volume": (
        lambda small: b"\xff" * CARRIER_BYTES + small.data[CARRIER_BYTES:],
        (
            r"no compressed volume 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1 \(DXEFV\) in the firmware volumes "
            r"\(at 0x20000\); "
            r"0x20000 bytes come before them: is the head of the image missing\?"
        ),
    ),
    "truncated": (lambda small: small.data[:-0x1000], "not an OVMF image: no GUIDed table ends at 0x52fe0"),
    "volume-too-long": (
        lambda small: patched(small.data, 32, struct.pack("<Q", 1 << 32)),
        r"volume at 0x0: truncated, it ends at 0x100000000, the data at 0x54000",
    ),
    "volume-checksum": (
        lambda small: patched(small.data, 51, b"\0"),
        r"volume at 0x0: bad checksum, the header's words add up to 0x[0-9a-f]+, not 0x0",
    ),
    "file-checksum": (
        lambda small: patched(small.data, small.carrier, b"\0"),
        r"file at 0x78: bad checksum, the header's bytes add up to 0x[0-9a-f]+, not 0x0",
    ),
    "file-state": (
        lambda small: patched(small.data, small.carrier + 23, b"\xff"),
        r"file at 0x78: state 0xff is that of no finished file",
    ),
    "stream": (
        lambda small: patched(small.data, small.carrier + 24 + 24 + 13, bytes(64)),
        r"LZMA stream at 0xa8: Corrupt input data",
    ),
    "foreign-file": (
        lambda small: with_file(small, FOREIGN),
        f"volume at 0x0: file {FOREIGN} at 0x[0-9a-f]+ follows the compressed section",
    ),
    "used-free-space": (
        lambda small: patched(small.data, CARRIER_BYTES - 3, b"abc"),
        r"volume at 0x0: 0x3 bytes of its free space from 0x[0-9a-f]+ are not 0xff",
    ),
    "no-pad": (without_pad, r"no pad file right below the volume-top file at 0x[0-9a-f]+"),
    "used-pad": (used_pad, r"pad file at 0x[0-9a-f]+: its last 0x30 bytes are not all 0xff"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_image(small: Small, images: dict[str, Image], command: Command, tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    data = make(small)
    with pytest.raises(FirmwareError, match=f"^{message}$"):
        inject(data, images["alias-gpa"].data)
    (tmp_path / "bad.fd").write_bytes(data)
    outcome = command("ovmf", "inject", "bad.fd", "-o", "out.fd", "--scheme", "alias-gpa")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("build.py: error: bad.fd: ")
    assert outcome.err.count("\n") == 1
    assert (tmp_path / "bad.fd").read_bytes() == data
    assert not (tmp_path / "out.fd").exists()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0x18000, r"volume at 0x0: no room, its compressed file needs 0x[0-9a-f]+ bytes, 0x[0-9a-f]+ are there"),
        (0x80000, r"DXEFV: no room, a file of 0x[0-9a-f]+ bytes at 0x[0-9a-f]+ of 0x[0-9a-f]+"),
        (0x1000000, r"section of 0x[0-9a-f]+ bytes, this one has less than 0xffffff"),
    ],
)
def test_oversized_blob(small: Small, images: dict[str, Image], size: int, message: str) -> None:
    """What refuses it depends on its size: the flash, the drivers' volume, or the format."""
    blob = images["alias-gpa"].data + random.Random(1).randbytes(size)
    for field in ("image_bytes", "ring_offset", "memory_bytes"):
        blob = wrong.with_field(blob, field, wrong.more(field, size))
    with pytest.raises(FirmwareError, match=f"^{message}$"):
        inject(small.data, blob)


def test_blob_that_is_not_what_it_says(small: Small, images: dict[str, Image]) -> None:
    blob = images["alias-gpa"].data
    with pytest.raises(
        FirmwareError, match=f"^image has {len(blob) + 1:#x} bytes, its descriptor says {len(blob):#x}$"
    ):
        inject(small.data, blob + b"x")


def test_output_that_is_the_input(small: Small, command: Command, tmp_path: Path) -> None:
    path = tmp_path / "in.fd"
    path.write_bytes(small.data)
    (tmp_path / "link.fd").symlink_to(path)
    os.link(path, tmp_path / "hard.fd")
    for output in ("in.fd", "./in.fd", "link.fd", "hard.fd"):
        outcome = command("ovmf", "inject", "in.fd", "-o", output, "--scheme", "regions")
        assert outcome == (2, "", f"build.py: error: output {Path(output)} is the input in.fd\n")
        outcome = command("ovmf", "extract", "in.fd", "-o", output)
        assert outcome == (2, "", f"build.py: error: output {Path(output)} is the input in.fd\n")
    assert path.read_bytes() == small.data


def test_output_that_cannot_be_written(small: Small, command: Command, tmp_path: Path) -> None:
    (tmp_path / "in.fd").write_bytes(small.data)
    (tmp_path / "folder").mkdir()
    outcome = command("ovmf", "inject", "in.fd", "-o", "folder", "--scheme", "regions")
    assert outcome == (1, "", "build.py: error: folder: Is a directory\n")
    outcome = command("ovmf", "inject", "in.fd", "-o", "/proc/out.fd", "--scheme", "regions")
    assert outcome.code == 1
    assert outcome.err.startswith("build.py: error: /proc/out.fd: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in.fd"]


def test_input_that_cannot_be_read(command: Command, tmp_path: Path) -> None:
    for verb in (["inject", "nowhere", "-o", "x", "--scheme", "regions"], ["table", "nowhere"], ["measure", "nowhere"]):
        assert command("ovmf", *verb) == (2, "", "build.py: error: nowhere: No such file or directory\n")
    assert command("ovmf", "table", tmp_path) == (2, "", f"build.py: error: {tmp_path} is no regular file\n")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    message = "huge: 0x10000000000 bytes, at most 0x4000000 are expected"
    assert command("ovmf", "table", "huge") == (1, "", f"build.py: error: {message}\n")


def test_nothing_to_extract(small: Small, command: Command, tmp_path: Path) -> None:
    (tmp_path / "in.fd").write_bytes(small.data)
    outcome = command("ovmf", "extract", "in.fd", "-o", "out.bin")
    assert outcome.code == 1
    assert outcome.err.startswith("build.py: error: in.fd: no image of the migration helper: no file aba6653f-")
    assert not (tmp_path / "out.bin").exists()


def test_isolated_has_nothing_to_load(small: Small, command: Command, tmp_path: Path) -> None:
    (tmp_path / "in.fd").write_bytes(small.data)
    outcome = command("ovmf", "inject", "in.fd", "-o", "out.fd", "--scheme", "isolated")
    what = "isolated: the helper lies in memory that only the mirror maps; no firmware loads it"
    assert outcome == (1, "", f"build.py: error: in.fd: {what}\n")


def test_parts_that_disagree(small: Small, images: dict[str, Image]) -> None:
    injected = inject(small.data, images["alias-gpa"].data)
    entry = read_table(injected).entries[-2]
    with pytest.raises(FirmwareError, match=r"^GUIDed table: our entry says ffff0004\w+, the image 00000004\w+$"):
        extract(patched(injected, entry.start, b"\xff\xff"))


@pytest.mark.parametrize(("dictionary", "size"), [(1 << 24, 1 << 62), (0xFFFF_FFFF, 0x1000), (1 << 24, 1 << 27)])
def test_a_bomb_is_not_decompressed(dictionary: int, size: int) -> None:
    stream = struct.pack("<BIQ", 0x5D, dictionary, size) + bytes(64)
    limit = r"LZMA stream at 0x0: 0x[0-9a-f]+ bytes of contents or dictionary, the limit is 0x4000000"
    with pytest.raises(FirmwareError, match=f"^{limit}$"):
        decompress(stream, 0, len(stream))
