"""MDATA: what the secure processor keeps of a page that was swapped out, in a METADATA page or in the guest's context.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_rmp.h (snp_metadata_page_t), sev_mcmd.c (snp_mcmd_swap_out).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from mh_builder.paging import PAGE_SHIFT
from mh_emulator.rmp.entry import PageSize, Perm

_ENTRY = struct.Struct("<QQ16sQ4s20x")
MDATA_BYTES = _ENTRY.size
TAG_BYTES = 16
_VALID, _VALIDATED, _VMSA, _METADATA = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_SIZE_SHIFT = 4


class SwapType(IntEnum):
    """PAGE_TYPE of SWAP_OUT and SWAP_IN."""

    DATA = 0
    METADATA = 1
    VMSA = 2


@dataclass(frozen=True, slots=True)
class Mdata:
    """One entry."""

    software_data: int = 0
    iv: int = 0
    tag: bytes = bytes(TAG_BYTES)
    valid: bool = False
    validated: bool = False
    vmsa: bool = False
    metadata: bool = False
    size: PageSize = PageSize.SMALL
    gpa: int = 0
    perms: tuple[Perm, ...] = (Perm(0),) * 4

    @property
    def kind(self) -> SwapType | None:
        """What was swapped out; None where the entry says two things."""
        if self.vmsa and self.metadata:
            return None
        if self.vmsa:
            return SwapType.VMSA
        return SwapType.METADATA if self.metadata else SwapType.DATA

    def pack(self) -> bytes:
        """`MDATA_BYTES` bytes."""
        flags = self.valid * _VALID | self.validated * _VALIDATED | self.vmsa * _VMSA | self.metadata * _METADATA
        word = flags | self.size << _SIZE_SHIFT | self.gpa >> PAGE_SHIFT << PAGE_SHIFT
        return _ENTRY.pack(self.software_data, self.iv, self.tag, word, bytes(self.perms))

    @classmethod
    def parse(cls, data: bytes) -> Mdata:
        """Read an entry."""
        software_data, iv, tag, word, perms = _ENTRY.unpack(data)
        valid, validated, vmsa, metadata = (bool(word & bit) for bit in (_VALID, _VALIDATED, _VMSA, _METADATA))
        size = PageSize(word >> _SIZE_SHIFT & 1)
        gpa = word >> PAGE_SHIFT << PAGE_SHIFT
        rights = tuple(Perm(perm) for perm in perms)
        return cls(software_data, iv, tag, valid, validated, vmsa, metadata, size, gpa, rights)
