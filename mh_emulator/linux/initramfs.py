"""An archive that a kernel unpacks into its root file system.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst (cpio, format newc).
"""

from __future__ import annotations

from collections.abc import Mapping

_MAGIC = b"070701"
_FIELDS = 13
_MODE, _LINKS, _SIZE, _NAME_SIZE = 1, 4, 6, 11
_PROGRAM = 0o100755
_END = "TRAILER!!!"


def archive(programs: Mapping[str, bytes]) -> bytes:
    """Programs by name."""
    return b"".join(_member(name, data) for name, data in (*programs.items(), (_END, b"")))


def _member(name: str, data: bytes) -> bytes:
    fields = [0] * _FIELDS
    fields[_MODE], fields[_LINKS], fields[_SIZE], fields[_NAME_SIZE] = _PROGRAM, 1, len(data), len(name) + 1
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
