"""The contents of an LZMA section, as edk2's LzmaCompress writes and LzmaCustomDecompress reads it.

A header of 13 bytes (properties, dictionary, size of the contents), then the stream of the LZMA SDK.
"""

from __future__ import annotations

import lzma
import struct
from functools import lru_cache

from mh_builder.firmware.errors import FirmwareError
from mh_builder.paging import MIB

_HEADER = struct.Struct("<BIQ")
_PROPERTIES = 0x5D
DICTIONARY_BYTES = 16 * MIB

CONTENTS_LIMIT = 64 * MIB
"""More than any OVMF holds: what is larger is not decompressed."""

_PRESETS = (1, 9)
_MEMORY_LIMIT = 192 * MIB


def decompress(data: bytes, start: int, end: int) -> bytes:
    """The contents of the stream between `start` and `end`. Raises `FirmwareError`."""
    where = f"LZMA stream at {start:#x}"
    if start + _HEADER.size > end:
        raise FirmwareError(f"{where}: {end - start:#x} bytes have no room for a header of {_HEADER.size:#x}")
    _, dictionary, size = _HEADER.unpack_from(data, start)
    if size > CONTENTS_LIMIT or dictionary > CONTENTS_LIMIT:
        largest = max(size, dictionary)
        raise FirmwareError(f"{where}: {largest:#x} bytes of contents or dictionary, the limit is {CONTENTS_LIMIT:#x}")
    try:
        contents = _decoded(data[start:end], size)
    except lzma.LZMAError as error:
        raise FirmwareError(f"{where}: {error}") from error
    if len(contents) != size:
        raise FirmwareError(f"{where}: it holds {len(contents):#x} bytes, its header says {size:#x}")
    return contents


@lru_cache(maxsize=1)
def _decoded(stream: bytes, size: int) -> bytes:
    """An image is checked before a helper is built for it, and read again with a table that names the helper."""
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY_LIMIT).decompress(stream, max_length=size)


def compress(contents: bytes, room: int) -> bytes:
    """A stream that gives `contents`: made quickly if that fits into `room` bytes, else as small as it gets."""
    stream = b""
    for preset in _PRESETS:
        method = {"id": lzma.FILTER_LZMA1, "preset": preset, "dict_size": DICTIONARY_BYTES}
        stream = lzma.compress(contents, format=lzma.FORMAT_ALONE, filters=[method])
        if len(stream) <= room:
            break
    # Python's size is "unknown"; edk2 allocates what this field says. The end marker that follows the data is
    # one that its decoder accepts.
    return _HEADER.pack(_PROPERTIES, DICTIONARY_BYTES, len(contents)) + stream[_HEADER.size :]
