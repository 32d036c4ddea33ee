"""A kernel that the VMM boots directly: its hashes are launched with the firmware, which compares them.

Source: QEMU, target/i386/sev.c (sev_add_kernel_loader_hashes): a table with the SHA-256 of command line, initrd and
kernel, padded to 16 bytes, which the firmware's GUIDed table gives a place. An initrd that is not there is hashed as
nothing, a command line with its final zero byte.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from uuid import UUID

_TABLE = UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_COMMAND_LINE = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL = UUID("4de79437-abd2-427f-b835-d5b172d2045b")

_HEADER = struct.Struct("<16sH")
_ENTRY = struct.Struct("<16sH32s")
_ALIGN = 16


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """Kernel and initrd as the VMM is given them, and the command line without a final zero."""

    kernel: bytes
    initrd: bytes = b""
    append: str = ""

    def hashes(self) -> bytes:
        """The table as it is launched."""
        parts = {_COMMAND_LINE: self.append.encode() + b"\0", _INITRD: self.initrd, _KERNEL: self.kernel}
        entries = b"".join(
            _ENTRY.pack(guid.bytes_le, _ENTRY.size, hashlib.sha256(data).digest()) for guid, data in parts.items()
        )
        table = _HEADER.pack(_TABLE.bytes_le, _HEADER.size + len(entries)) + entries
        return table.ljust(-(-len(table) // _ALIGN) * _ALIGN, b"\0")
