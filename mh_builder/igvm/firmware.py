"""Firmware in an IGVM file: the pages that end at 4 GiB are the flash image."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import LARGEST_FLASH
from mh_builder.igvm.file import Header, Igvm, page_bytes
from mh_builder.igvm.layout import DataType, PageData, ParameterArea, VpContext
from mh_builder.igvm.read import read_igvm
from mh_builder.igvm.write import sealed
from mh_builder.paging import GIB, PAGE_BYTES

FLASH_END = 4 * GIB
_FILE_OFFSET = 12
"""Of a page's `file_offset` in its body."""
_TOTAL_OFFSET = 16
"""Of the size of the file in the fixed header."""


def flash_of(igvm: Igvm) -> bytes:
    """The flash image: all measured pages from 4 GiB down to the first gap. Raises `FirmwareError` without any."""
    pages = [igvm.contents(body) or bytes(page_bytes(body)) for _, body in _flash_pages(igvm)]
    return b"".join(reversed(pages))


def with_flash(igvm: Igvm, flash: bytes) -> Igvm:
    """The file with another flash image of the same size. All else stays where it is, byte for byte.

    A changed page is written over the old one where nothing else has its data, else behind all others.
    """
    data = bytearray(igvm.data)
    uses = Counter(block for start, size in _data_ranges(igvm) for block in _blocks(igvm, start, size))
    end = len(flash)
    for header, body in _flash_pages(igvm):
        page = flash[end - page_bytes(body) : end]
        end -= page_bytes(body)
        if page == (igvm.contents(body) or bytes(page_bytes(body))):
            continue
        offset = body.file_offset
        if not offset or any(uses[block] > 1 for block in _blocks(igvm, offset, len(page))):
            data += bytes(-(len(data) - igvm.headers_end) % PAGE_BYTES)
            offset = len(data)
            struct.pack_into("<I", data, header.body_offset + _FILE_OFFSET, offset)
        data[offset : offset + len(page)] = page
    if end:
        raise FirmwareError(f"IGVM: firmware of {len(flash):#x} bytes, the file has pages for {len(flash) - end:#x}")
    struct.pack_into("<I", data, _TOTAL_OFFSET, len(data))
    return read_igvm(sealed(data))


def memory_of(igvm: Igvm) -> list[tuple[int, bytes]]:
    """(GPA, bytes) of all other pages that have data, what follows each other as one."""
    flash = {body.gpa for _, body in _flash_pages(igvm)}
    runs: list[tuple[int, bytearray]] = []
    for body in sorted(igvm.bodies(PageData), key=lambda body: body.gpa):
        contents = igvm.contents(body)
        if contents is None or body.gpa in flash:
            continue
        if runs and runs[-1][0] + len(runs[-1][1]) == body.gpa:
            runs[-1][1].extend(contents)
        else:
            runs.append((body.gpa, bytearray(contents)))
    return [(gpa, bytes(data)) for gpa, data in runs]


def _flash_pages(igvm: Igvm) -> Iterator[tuple[Header, PageData]]:
    """From 4 GiB downwards."""
    pages: dict[int, tuple[Header, PageData]] = {}
    for header in igvm.headers:
        body = header.body
        if not isinstance(body, PageData) or body.data_type != DataType.NORMAL or body.flags & ~1:
            continue
        end = body.gpa + page_bytes(body)
        if end in pages and FLASH_END - LARGEST_FLASH < end <= FLASH_END:
            raise FirmwareError(f"IGVM: two pages end at {end:#x}: the firmware is not that of all platforms")
        pages[end] = (header, body)
    end = FLASH_END
    while end in pages:
        yield pages[end]
        end = pages[end][1].gpa
        if end < FLASH_END - LARGEST_FLASH:
            raise FirmwareError(f"IGVM: firmware begins below {FLASH_END - LARGEST_FLASH:#x}, at {end:#x}")
    if end == FLASH_END:
        raise FirmwareError(f"IGVM: no firmware: no measured page ends at {FLASH_END:#x}")


def _data_ranges(igvm: Igvm) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of every piece of data in the file."""
    for header in igvm.headers:
        body = header.body
        if isinstance(body, PageData | VpContext) and body.file_offset:
            yield body.file_offset, page_bytes(body)
        elif isinstance(body, ParameterArea) and body.file_offset:
            yield body.file_offset, body.size


def _blocks(igvm: Igvm, start: int, size: int) -> range:
    """Pages of the file's data, counted from where they begin, that a piece touches."""
    first = start - igvm.headers_end
    return range(first // PAGE_BYTES, (first + size - 1) // PAGE_BYTES + 1)
