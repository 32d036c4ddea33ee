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
_TABLE_OFFSET, _DECOY_OFFSET = 0x100, 0x180
_SNP = UUID("067b1f5f-cf26-44c5-8554-93d777912d42")
"""gConfidentialComputingSevSnpBlobGuid."""
_SVSM_BYTES_OFFSET = 0x148
_HALF = len(_SNP.bytes_le) // 2
_DECOYS = (_SNP.bytes_le[:_HALF] + bytes(_HALF), bytes(_HALF) + _SNP.bytes_le[_HALF:])
"""Names that mean nothing, of tables that look as if they told of an SVSM."""


def tables(svsm_bytes: int | None) -> tuple[int, bytes]:
    """How many tables there are, and the pages from `layout.CONFIGURATION` on: the list, and the secrets page.

    `svsm_bytes` is what the secrets page says of the SVSM, 0 where there is none; None is a guest without SNP.
    """
    entries = [_ENTRY.pack(name, layout.CONFIGURATION + _DECOY_OFFSET) for name in _DECOYS]
    if svsm_bytes is not None:
        entries.append(_ENTRY.pack(_SNP.bytes_le, layout.CONFIGURATION + _TABLE_OFFSET))
    table, decoy = (
        _TABLE.pack(b"AMDE", 1, 0, place, PAGE_BYTES, 0, 0, 0, 0) for place in (layout.SECRETS, layout.SYSTEM_TABLE)
    )
    secrets = bytearray(PAGE_BYTES)
    struct.pack_into("<Q", secrets, _SVSM_BYTES_OFFSET, svsm_bytes or 0)
    listed = (b"".join(entries).ljust(_TABLE_OFFSET, b"\0") + table).ljust(_DECOY_OFFSET, b"\0") + decoy
    return len(entries), listed.ljust(PAGE_BYTES, b"\0") + secrets
