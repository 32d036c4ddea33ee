"""Images that would take a reader too deep, or too long: one line says where it stops."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from uuid import UUID

import pytest

from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.small import CARRIER_BYTES, Small, resized, shrink
from mh_builder.firmware import guids
from mh_builder.firmware.compressed import compress
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.inventory import DEEPEST, inventory
from mh_builder.firmware.section import MOST_SECTIONS, RAW, VOLUME_IMAGE, join, make_guided, make_section
from mh_builder.firmware.volume import FILE_HEADER, MOST_FILES, TYPE_DRIVER, TYPE_VOLUME, file_header

FOREIGN = UUID("5a1d1a2b-7b0f-4f5c-9a58-2d3c2f9d1b11")


@pytest.fixture(scope="module")
def small(stock: Find) -> Small:
    return shrink(stock("X64").read_bytes())


def holding(small: Small, section: bytes) -> bytes:
    """A flash image that begins with a volume of one file of volumes with one section."""
    size = -(-(small.carrier + FILE_HEADER.size + len(section)) // 0x1000) * 0x1000
    volume = small.data[: small.carrier] + file_header(FOREIGN, TYPE_VOLUME, 0, section) + section
    return resized(volume.ljust(size, b"\xff")) + small.data


def nested_volumes(small: Small) -> bytes:
    section = make_section(RAW, b"")
    for _ in range(DEEPEST + 1):
        section = make_section(VOLUME_IMAGE, holding(small, section)[: -len(small.data)])
    return holding(small, section)


def nested_sections(small: Small) -> bytes:
    section = make_section(RAW, b"")
    for _ in range(DEEPEST + 1):
        section = make_guided(guids.LZMA, compress(section, CARRIER_BYTES))
    return holding(small, section)


def too_much(small: Small) -> bytes:
    """Twice a section of 40 MiB."""
    zeros = struct.pack("<II", RAW << 24 | 0xFFFFFF, 40 << 20).ljust(40 << 20, b"\0")
    section = make_guided(guids.LZMA, compress(zeros, CARRIER_BYTES))
    return holding(small, join([section, section]))


def too_many_sections(small: Small) -> bytes:
    """Small ones, in two files: no file has too many."""
    body = make_section(RAW, b"") * (MOST_SECTIONS // 2 + 1)
    volume = small.data[: small.carrier] + (file_header(FOREIGN, TYPE_DRIVER, 0, body) + body).ljust(len(body) + 28) * 2
    return resized(volume.ljust(-(-len(volume) // 0x1000) * 0x1000, b"\xff")) + small.data


def too_many_files(small: Small) -> bytes:
    files = file_header(FOREIGN, 0x01, 0, b"") * (MOST_FILES + 1)
    volume = small.data[: small.carrier] + files
    return resized(volume.ljust(-(-len(volume) // 0x1000) * 0x1000, b"\xff")) + small.data


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (nested_volumes, "0x8 volumes around it, too deep"),
        (nested_sections, "0x8 sections around it, too deep"),
        (too_much, "0x5000000 bytes were compressed so far, the limit is 0x4000000"),
        (too_many_sections, "more than 0x10000 in all files"),
        (too_many_files, "more than 0x4000 files"),
    ],
)
def test_bounds(small: Small, make: Callable[[Small], bytes], expected: str) -> None:
    with pytest.raises(FirmwareError, match=re.escape(expected)):
        inventory(make(small))
