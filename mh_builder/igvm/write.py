"""A new IGVM file: headers in order, and behind them every piece of data once. The same parts give the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from mh_builder.igvm.file import header_checksum
from mh_builder.igvm.layout import (
    ALIGNMENT,
    CHECKSUM_OFFSET,
    FIXED_HEADER,
    MAGIC,
    STRUCTURES,
    VARIABLE_HEADER,
    Body,
    Kind,
    PageData,
    VpContext,
)
from mh_builder.paging import PAGE_BYTES


class Part(NamedTuple):
    """A header to be written; `data` of a page or of registers, whose `file_offset` is set where they end up."""

    kind: Kind
    body: Body
    data: bytes | None = None


def write_igvm(parts: Iterable[Part]) -> bytes:
    """A file of version 1, which every loader knows; data are padded to pages, as the crate does."""
    chosen = list(parts)
    sizes = (STRUCTURES[part.kind][0].size for part in chosen)
    headers_end = FIXED_HEADER.size + sum(VARIABLE_HEADER.size + _aligned(size) for size in sizes)
    headers, data = bytearray(), bytearray()
    places: dict[bytes, int] = {}
    for part in chosen:
        body = part.body
        if part.data is not None and isinstance(body, PageData | VpContext):
            page = part.data.ljust(PAGE_BYTES, b"\0")
            if page not in places:
                places[page] = headers_end + len(data)
                data += page
            body = body._replace(file_offset=places[page])
        headers += packed(part.kind, body)
    total = headers_end + len(data)
    fixed = FIXED_HEADER.pack(MAGIC, 1, FIXED_HEADER.size, len(headers), total, 0)
    return sealed(fixed + headers + data)


def sealed(data: bytes | bytearray) -> bytes:
    """`data` with the checksum that its headers have to have."""
    version, offset, size = struct.unpack_from("<3I", data, len(MAGIC))
    fixed = FIXED_HEADER.size if version == 1 else FIXED_HEADER.size + ALIGNMENT
    checksum = header_checksum(data, fixed, offset, size)
    return b"".join((data[:CHECKSUM_OFFSET], struct.pack("<I", checksum), data[CHECKSUM_OFFSET + 4 :]))


def packed(kind: Kind, body: Body) -> bytes:
    """A header of the file."""
    layout = STRUCTURES[kind][0]
    packed = layout.pack(*body)
    return VARIABLE_HEADER.pack(kind, len(packed)) + packed.ljust(_aligned(len(packed)), b"\0")


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
