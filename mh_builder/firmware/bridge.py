"""Our entry in the GUIDed table of a finished image, where there is no room for one.

Below the table's lowest entry stands code that cannot move. So the slot of that entry becomes ours: it holds our
length and GUID, and the length makes our data reach down through the code into new space, which the volume-top file
gains by growing downwards at the pad file's cost. There our data begin, and below them lies the displaced entry,
unchanged. Every entry keeps its length and data, no byte of code moves.
"""

from __future__ import annotations

from dataclasses import dataclass

from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.table import ENTRY_HEADER, Entry, Table, read_table
from mh_builder.firmware.volume import (
    ERASED,
    FILE_HEADER,
    TYPE_PAD,
    File,
    Volume,
    aligned,
    file_header,
    find_volumes,
    read_files,
)

_TOP_ALIGN = 16
"""The volume-top file's contents keep their alignment."""


def with_entry(flash: bytes, data: bytes) -> bytes:
    """`flash` with `data` in our entry, which is made if there is none. Raises `FirmwareError`."""
    table = read_table(flash)
    changed = bytearray(flash)
    own = table.find(guids.FIRMWARE_ENTRY)
    if own is None:
        _bridge(changed, table, data)
    elif own.length - ENTRY_HEADER.size < len(data):
        raise FirmwareError(
            f"GUIDed table: our entry at {own.end:#x} has {own.length - ENTRY_HEADER.size:#x} bytes, "
            f"{len(data):#x} are needed"
        )
    else:
        changed[own.start : own.start + len(data)] = data
    return bytes(changed)


@dataclass(frozen=True, slots=True)
class _Top:
    """The volume-top file, and the pad file right below it."""

    volume: Volume
    pad: File
    file: File


def _bridge(flash: bytearray, table: Table, data: bytes) -> None:
    if not table.entries:
        raise FirmwareError(f"GUIDed table at {table.end:#x} has no entries")
    lowest = table.entries[-1]
    displaced = bytes(flash[lowest.start : lowest.end])
    top = _find_top(bytes(flash), table)
    _grow(flash, top, aligned(len(data) + len(displaced), _TOP_ALIGN))
    # The old header's last byte is the first that may be ours.
    start = top.file.body - len(data)
    flash[start : top.file.body] = data
    flash[start - len(displaced) : start] = displaced
    header = ENTRY_HEADER.pack(_length(lowest.end - start, lowest), guids.FIRMWARE_ENTRY.bytes_le)
    flash[lowest.end - ENTRY_HEADER.size : lowest.end] = header
    total = _length(table.end - start + len(displaced), lowest)
    flash[table.end - ENTRY_HEADER.size : table.end - 16] = total.to_bytes(2, "little")


def _length(length: int, lowest: Entry) -> int:
    if length > 0xFFFF:
        raise FirmwareError(f"GUIDed table: entry at {lowest.end:#x} would need {length:#x} bytes, 0xffff are possible")
    return length


def _find_top(flash: bytes, table: Table) -> _Top:
    for volume in find_volumes(flash):
        if volume.first_file is None or volume.end != len(flash):
            continue
        files = read_files(flash, volume).files
        tops = [number for number, file in enumerate(files) if file.guid == guids.VOLUME_TOP]
        if not tops:
            break
        file, below = files[tops[0]], files[: tops[0]]
        if not file.body <= table.start or file.end < table.end:
            raise FirmwareError(f"GUIDed table at {table.start:#x} is not in the file at {file.offset:#x}")
        if not below or below[-1].kind != TYPE_PAD or aligned(below[-1].end) != file.offset:
            raise FirmwareError(f"no pad file right below the volume-top file at {file.offset:#x}")
        return _Top(volume, below[-1], file)
    raise FirmwareError(f"no volume-top file {guids.VOLUME_TOP} in a volume that ends at {len(flash):#x}")


def _grow(flash: bytearray, top: _Top, size: int) -> None:
    """Let the volume-top file start `size` bytes lower."""
    pad, file = top.pad, top.file
    room = pad.end - pad.body - size
    if room < 0:
        raise FirmwareError(f"pad file at {pad.offset:#x}: {pad.end - pad.body:#x} bytes, {size:#x} are needed")
    taken = flash[pad.end - size : pad.end]
    if taken.strip(ERASED):
        raise FirmwareError(f"pad file at {pad.offset:#x}: its last {size:#x} bytes are not all 0xff")
    if file.header_bytes != FILE_HEADER.size or pad.header_bytes != FILE_HEADER.size:
        raise FirmwareError(f"file at {file.offset:#x} or {pad.offset:#x}: header of another size than 0x18")
    flash[file.offset : file.body] = ERASED * FILE_HEADER.size
    contents = bytes(flash[file.body - size : file.end])
    start = file.offset - size
    flash[start : start + FILE_HEADER.size] = file_header(file.guid, file.kind, file.attributes, contents)
    padding = bytes(flash[pad.body : pad.end - size])
    flash[pad.offset : pad.body] = file_header(pad.guid, pad.kind, pad.attributes, padding)
