"""More pages in an IGVM file: headers grow at their end, and all data move up by as much."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mh_builder.firmware.errors import FirmwareError
from mh_builder.igvm.file import Header, Igvm, page_bytes
from mh_builder.igvm.layout import (
    KNOWN,
    STRUCTURES,
    VARIABLE_HEADER,
    DataType,
    Kind,
    Opaque,
    PageData,
)
from mh_builder.igvm.read import read_igvm
from mh_builder.igvm.write import packed, sealed
from mh_builder.paging import PAGE_BYTES

_OFFSETS: Mapping[int, int] = MappingProxyType(
    {
        Kind.PAGE_DATA: 12, Kind.VP_CONTEXT: 12, Kind.PARAMETER_AREA: 12,
        Kind.CORIM_DOCUMENT: 4, Kind.CORIM_SIGNATURE: 4,
    }
)  # fmt: skip
"""Where in a body the offset of its data is."""
_HEADERS_SIZE_OFFSET = 12
_TOTAL_OFFSET = 16


def with_pages(igvm: Igvm, pages: Sequence[tuple[int, bytes]], replaced: int | None = None) -> Igvm:
    """The file with these pages, (GPA, contents), measured on all of its platforms behind all that is there.

    They take the place of zero pages, and the one at GPA `replaced` that of any page. Raises `FirmwareError` where
    other memory is there, and for a header that cannot be moved, because what it says of the file is unknown.
    """
    wanted = {gpa for gpa, _ in pages}
    for header in igvm.headers:
        if isinstance(header.body, Opaque) and header.kind not in KNOWN:
            raise FirmwareError(f"IGVM: {header.name} at {header.offset:#x} is unknown: its data cannot be moved")
    kept = [header for header in igvm.headers if not _gives_way(header, wanted, replaced)]
    mask = sum(igvm.platforms.values())
    first = igvm.headers[0].offset if igvm.headers else 0
    headers_size = sum(_bytes(header) for header in kept) + len(pages) * _bytes_of(Kind.PAGE_DATA)
    start = first + headers_size
    shift = start - igvm.headers_end
    padding = bytes(-(len(igvm.data) - igvm.headers_end) % PAGE_BYTES)
    headers = b"".join(_moved(igvm, header, shift) for header in kept)
    offset = len(igvm.data) + len(padding) + shift
    for gpa, contents in pages:
        headers += packed(Kind.PAGE_DATA, PageData(gpa, mask, offset))
        offset += len(contents)
    head = bytearray(igvm.data[:first])
    struct.pack_into("<I", head, _HEADERS_SIZE_OFFSET, headers_size)
    struct.pack_into("<I", head, _TOTAL_OFFSET, offset)
    data = igvm.data[igvm.headers_end :] + padding + b"".join(contents for _, contents in pages)
    return read_igvm(sealed(bytes(head) + headers + data))


def _gives_way(header: Header, wanted: set[int], replaced: int | None) -> bool:
    body = header.body
    if not isinstance(body, PageData) or body.gpa not in wanted or page_bytes(body) != PAGE_BYTES:
        return False
    return body.gpa == replaced or (body.data_type, body.flags, body.file_offset) == (DataType.NORMAL, 0, 0)


def _moved(igvm: Igvm, header: Header, shift: int) -> bytes:
    raw = bytearray(igvm.data[header.offset : header.offset + _bytes(header)])
    place = VARIABLE_HEADER.size + _OFFSETS.get(header.kind, 0)
    if header.kind in _OFFSETS:
        (offset,) = struct.unpack_from("<I", raw, place)
        struct.pack_into("<I", raw, place, offset + shift if offset else 0)
    return bytes(raw)


def _bytes(header: Header) -> int:
    return _bytes_of(Kind(header.kind))


def _bytes_of(kind: Kind) -> int:
    return VARIABLE_HEADER.size + -(-STRUCTURES[kind][0].size // 8) * 8
