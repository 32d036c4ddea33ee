"""The configuration tables that a driver finds: under SNP that of OVMF, which leads to the secrets page.

Source: UEFI 2.10, section 4.6; edk2, OvmfPkg/AmdSevDxe (AllocateConfidentialComputingBlob) and
MdePkg/Include/Register/Amd/Svsm.h.
"""

from __future__ import annotations

import struct
from uuid import UUID

from mh_builder.paging import PAGE_BYTES
from mh_emulator.uefi import layout

_ENTRY = struct.Struct("<16sQ")
_TABLE = struct.Struct("<4sHHQIIQII")
_TABLE_OFFSET = 0x100
_SNP = UUID("067b1f5f-cf26-44c5-8554-93d777912d42")
"""gConfidentialComputingSevSnpBlobGuid."""
_SVSM_BYTES_OFFSET = 0x148
_OTHER = UUID("eb9d2d31-2d88-11d3-9a16-0090273fc14d")
"""EFI_SMBIOS_TABLE_GUID: one that means nothing here."""


def tables(svsm_bytes: int | None) -> tuple[int, bytes]:
    """How many tables there are, and the pages from `layout.CONFIGURATION` on: the list, and the secrets page.

    `svsm_bytes` is what the secrets page says of the SVSM, 0 where there is none; None is a guest without SNP.
    """
    entries = [_ENTRY.pack(_OTHER.bytes_le, layout.CONFIGURATION)]
    if svsm_bytes is not None:
        entries.append(_ENTRY.pack(_SNP.bytes_le, layout.CONFIGURATION + _TABLE_OFFSET))
    table = _TABLE.pack(b"AMDE", 1, 0, layout.SECRETS, PAGE_BYTES, 0, 0, 0, 0)
    secrets = bytearray(PAGE_BYTES)
    struct.pack_into("<Q", secrets, _SVSM_BYTES_OFFSET, svsm_bytes or 0)
    listed = b"".join(entries).ljust(_TABLE_OFFSET, b"\0") + table
    return len(entries), listed.ljust(PAGE_BYTES, b"\0") + secrets
