"""Tails of flash images with another GUIDed table, or other SEV metadata, than they were built with."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from uuid import UUID

from emulator_tests.firmware.small import patched
from mh_builder.firmware import guids
from mh_builder.firmware.table import read_table

Item = tuple[int, int, int]
"""GPA, size, kind."""

FIRST_ITEM, ITEM_BYTES = 16, 12


def metadata_at(flash: bytes) -> int:
    """Where the SEV metadata are."""
    entry = read_table(flash).find(guids.SEV_METADATA)
    assert entry is not None
    return len(flash) - int.from_bytes(entry.data(flash), "little")


def with_items(flash: bytes, items: Sequence[Item]) -> bytes:
    """The first areas become these; those behind them stay."""
    packed = b"".join(struct.pack("<III", *item) for item in items)
    return patched(flash, metadata_at(flash) + FIRST_ITEM, packed)


def with_guid(flash: bytes, number: int, guid: UUID) -> bytes:
    """An entry of the GUIDed table, from the footer down, gets another GUID."""
    entry = read_table(flash).entries[number]
    return patched(flash, entry.end - 16, guid.bytes_le)


def with_entry_data(flash: bytes, guid: UUID, data: bytes) -> bytes:
    """An entry gets other data; it keeps its length."""
    entry = read_table(flash).find(guid)
    assert entry is not None
    return patched(flash, entry.start, data)


def table_only(entries: Sequence[tuple[UUID, bytes]], size: int = 0x1000) -> bytes:
    """`size` bytes of nothing but a table; `entries` (GUID, data) from the footer down."""
    below = b""
    for guid, data in entries:
        below = data + struct.pack("<H16s", len(data) + 18, guid.bytes_le) + below
    table = below + struct.pack("<H16s", len(below) + 18, guids.TABLE_FOOTER.bytes_le)
    return table.rjust(size - 32, b"\xff") + bytes(32)
