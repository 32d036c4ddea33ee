"""Kdump-compressed files of the tests' own making, by makedumpfile's IMPLEMENTATION."""

from __future__ import annotations

import struct
import zlib

PAGE = 0x1000
ZLIB, LZO = 1, 2


def kdump(pages: dict[int, bytes], notes: bytes = b"", flags: int = ZLIB, bits: int = 64) -> bytes:
    """A file with these pages, by number; with structures of so many bits."""
    last = max(pages, default=0) + 1
    blocks = -(-last // (8 * PAGE))
    bitmap = bytearray(blocks * PAGE)
    for number in pages:
        bitmap[number >> 3] |= 1 << (number & 7)
    header = struct.pack(
        f"<8sI390x{22 if bits == 64 else 10}x10I", b"KDUMP   ", 6, flags, PAGE, 1, 2 * blocks, last, 0, 0, 0, 0, 1
    )
    start = (2 + 2 * blocks) * PAGE
    descriptors, body = bytearray(), bytearray(notes)
    offset = start + 24 * len(pages)
    for _, data in sorted(pages.items()):
        packed = zlib.compress(data) if flags == ZLIB else data[:-1]
        stored, how = (packed, flags) if len(packed) < PAGE else (data, 0)
        descriptors += struct.pack("<QIIQ", offset + len(body), len(stored), how, 0)
        body += stored
    if bits == 64:
        sub_header = struct.pack("<QiiQQQQQQ", 0, 0, 0, 0, 0, 0, 0, offset, len(notes))
    else:
        sub_header = struct.pack("<IiiIIQIQI", 0, 0, 0, 0, 0, 0, 0, offset, len(notes))
    head = header.ljust(PAGE, b"\0") + sub_header.ljust(PAGE, b"\0") + bitmap + bitmap
    return head + descriptors + body


def flattened(data: bytes, piece: int = 1000) -> bytes:
    """The same as it goes through a pipe, in pieces, the header once more at the end."""
    start = struct.pack("<16s", b"makedumpfile") + struct.pack(">qq", 1, 1)
    records = [(0, bytes(PAGE)), *((at, data[at : at + piece]) for at in range(PAGE, len(data), piece))]
    records += [(at, data[at : at + piece]) for at in range(0, PAGE, PAGE)]
    records[-1] = (0, data[:PAGE])
    body = b"".join(struct.pack(">qq", at, len(part)) + part for at, part in records)
    return start.ljust(PAGE, b"\0") + body + struct.pack(">qq", -1, -1)
