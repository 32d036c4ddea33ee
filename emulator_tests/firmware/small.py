"""A small flash image out of a real one: fewer drivers, so that many variants of it can be read and written."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from mh_builder.firmware import guids
from mh_builder.firmware.compressed import compress
from mh_builder.firmware.flash import Flash, read_flash
from mh_builder.firmware.section import VOLUME_IMAGE, make_guided, make_section
from mh_builder.firmware.volume import file_header, read_files

DRIVERS_BYTES = 0x80000
KEPT_BYTES = 0x30000
CARRIER_BYTES = 0x20000
_LENGTH_OFFSET, _CHECKSUM_OFFSET, _BLOCK_MAP_OFFSET, _HEADER_BYTES = 32, 50, 56, 72


@dataclass(frozen=True)
class Small:
    """The image, and where in it things are."""

    data: bytes
    carrier: int
    """The compressed file."""
    free: int
    """Behind it."""
    top: int
    """The volume-top file."""
    pad: int
    """The pad file below that."""


def shrink(flash: bytes) -> Small:
    """Keep the first drivers, and the volume with the reset vector as it is."""
    parts = read_flash(flash)
    drivers = parts.drivers
    kept = [file for file in read_files(parts.inner, drivers).files if file.end - drivers.offset < KEPT_BYTES]
    volume = parts.inner[drivers.offset : kept[-1].end]
    inner = make_section(VOLUME_IMAGE, resized(volume.ljust(DRIVERS_BYTES, b"\xff")))
    return _assemble(parts, inner)


def _assemble(parts: Flash, inner: bytes) -> Small:
    carrier = parts.carrier
    body = make_guided(guids.LZMA, compress(inner, CARRIER_BYTES))
    file = file_header(carrier.guid, carrier.kind, carrier.attributes, body) + body
    head = parts.data[parts.carrier_volume.offset : carrier.offset]
    first = resized((head + file).ljust(CARRIER_BYTES, b"\xff"))
    second = parts.volumes[-1]
    data = first + parts.data[second.offset : second.end]
    shift = len(first) - second.offset
    files = {file.guid: file.offset + shift for file in read_files(parts.data, second).files}
    return Small(data, len(head), len(head) + len(file), files[guids.VOLUME_TOP], files[guids.PAD_FILE])


def resized(volume: bytes) -> bytes:
    """A volume whose header says its length, in one block."""
    changed = bytearray(volume)
    struct.pack_into("<Q", changed, _LENGTH_OFFSET, len(volume))
    struct.pack_into("<II", changed, _BLOCK_MAP_OFFSET, 1, len(volume))
    struct.pack_into("<H", changed, _CHECKSUM_OFFSET, 0)
    total = sum(struct.unpack_from(f"<{_HEADER_BYTES // 2}H", changed))
    struct.pack_into("<H", changed, _CHECKSUM_OFFSET, -total & 0xFFFF)
    return bytes(changed)


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """`data` with other bytes at `offset`."""
    return data[:offset] + new + data[offset + len(new) :]


def with_file(small: Small, guid: UUID) -> bytes:
    """The image with a file behind the compressed one."""
    body = b"a foreign file  "
    offset = -(-small.free // 8) * 8
    return patched(small.data, offset, file_header(guid, 0x01, 0, body) + body)


def with_inner(small: Small, change: Callable[[bytes], bytes]) -> bytes:
    """The image with other compressed contents, of the same size."""
    flash = read_flash(small.data)
    old = flash.carrier
    body = make_guided(guids.LZMA, compress(change(flash.inner), CARRIER_BYTES))
    file = file_header(old.guid, old.kind, old.attributes, body) + body
    return patched(small.data, old.offset, file.ljust(CARRIER_BYTES - old.offset, b"\xff"))


def with_inner_file(small: Small, guid: UUID, kind: int | None, change: Callable[[bytes], bytes]) -> bytes:
    """The image with another body of the same size, and maybe another type, of a driver."""
    flash = read_flash(small.data)
    file = next(file for file in flash.driver_files().files if file.guid == guid)
    body = change(flash.inner[file.body : file.end])
    header = file_header(file.guid, file.kind if kind is None else kind, file.attributes, body)
    return with_inner(small, lambda inner: patched(inner, file.offset, header + body))


def variables(small: Small, size: int = 0x20000) -> bytes:
    """The head of a variable store, in a volume of any size; what is in it no reader looks at."""
    head = bytearray(resized(b"".join((small.data[:0x78], bytes(size - 0x78)))))
    head[16:32] = guids.VARIABLES.bytes_le
    return resized(bytes(head))
