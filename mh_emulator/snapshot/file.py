"""The file of a snapshot: a header, JSON, and a body of frames, with a SHA-256 of all of it.

Nothing in it is executed, and nothing is believed before it is checked. The digest finds damage; it keeps nobody from
writing another one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mh_emulator.snapshot.errors import SnapshotError

MAGIC = b"SEV-MH-S"
VERSION = 1
"""A change of what is in it, or of what its launch does, takes another one."""
LARGEST = 4 << 30
"""Bytes of a file that is looked at."""

_HEADER = struct.Struct("<8sIIQ")
_DIGEST_BYTES = hashlib.sha256().digest_size
_START = _HEADER.size + _DIGEST_BYTES


class Contents(NamedTuple):
    """What is in one."""

    head: dict[str, object]
    body: memoryview


def write(head: Mapping[str, object], body: Iterable[bytes]) -> bytes:
    """The whole file."""
    text, frames = json.dumps(head, sort_keys=True).encode(), b"".join(body)
    header = _HEADER.pack(MAGIC, VERSION, len(text), len(frames))
    return b"".join((header, _digest(header, text, frames), text, frames))


def read(data: bytes) -> Contents:
    """What is in the file. Raises `SnapshotError`."""
    if data[: len(MAGIC)] != MAGIC:
        raise SnapshotError(f"no snapshot: it begins with {data[: len(MAGIC)].hex() or 'nothing'}, not {MAGIC.hex()}")
    if len(data) < _START:
        raise SnapshotError(f"{len(data):#x} bytes: the header alone has {_START:#x}")
    _, version, text_bytes, frame_bytes = _HEADER.unpack_from(data)
    if version != VERSION:
        raise SnapshotError(f"a snapshot of version {version}, not {VERSION}")
    end = _START + text_bytes + frame_bytes
    if len(data) != end:
        raise SnapshotError(f"{len(data):#x} bytes: by its header it has {end:#x}")
    whole = memoryview(data)
    text, body = whole[_START : _START + text_bytes], whole[_START + text_bytes :]
    said, found = data[_HEADER.size : _START], _digest(data[: _HEADER.size], text, body)
    if said != found:
        raise SnapshotError(f"damaged: its SHA-256 is {found.hex()}, by its header {said.hex()}")
    return Contents(_parse(text), body)


def _parse(text: memoryview) -> dict[str, object]:
    try:
        head = json.loads(text.tobytes())
    except (ValueError, RecursionError):
        raise SnapshotError("what is behind its header is no JSON") from None
    if not isinstance(head, dict):
        raise SnapshotError("what is behind its header is no object of JSON")
    return head


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()
