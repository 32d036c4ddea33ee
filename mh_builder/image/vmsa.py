"""The VMSA: the encrypted register file with which an SEV-ES vCPU starts the helper.

Source: AMD64 APM volume 2, appendix B, table B-4 (offsets), section 15.5.1 (what VMRUN accepts), section 4.8
(segment attributes, here bits 55:52 and 47:40 of a descriptor as one 12-bit number).

KVM makes this page from the registers that the VMM has set, and LAUNCH_UPDATE_VMSA measures it. So the file
is what the guest owner expects in the measurement, and what the VMM has to set to get it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES


class _Segment(NamedTuple):
    selector: int
    attributes: int
    limit: int
    base: int = 0


_SEGMENT = struct.Struct("<HHIQ")
_FLAT_CODE = _Segment(0x08, 0xA9B, 0xFFFF_FFFF)
_FLAT_DATA = _Segment(0x10, 0xC93, 0xFFFF_FFFF)
_NO_TABLE = _Segment(0, 0, 0)
_LDT = _Segment(0, 0x082, 0xFFFF)
_BUSY_TSS = _Segment(0, 0x08B, 0xFFFF)

_SEGMENTS = {
    0x000: _FLAT_DATA,  # ES
    0x010: _FLAT_CODE,  # CS
    0x020: _FLAT_DATA,  # SS
    0x030: _FLAT_DATA,  # DS
    0x040: _FLAT_DATA,  # FS
    0x050: _FLAT_DATA,  # GS
    0x060: _NO_TABLE,  # GDTR, loaded by entry64 before it is used
    0x070: _LDT,  # LDTR
    0x080: _NO_TABLE,  # IDTR
    0x090: _BUSY_TSS,  # TR
}

_EFER_OFFSET, _CR4_OFFSET, _CR3_OFFSET, _CR0_OFFSET = 0x0D0, 0x148, 0x150, 0x158
_DR7_OFFSET, _DR6_OFFSET, _RFLAGS_OFFSET, _RIP_OFFSET, _RSP_OFFSET = 0x160, 0x168, 0x170, 0x178, 0x1D8
_G_PAT_OFFSET, _SEV_FEATURES_OFFSET, _XCR0_OFFSET, _MXCSR_OFFSET, _FCW_OFFSET = 0x268, 0x3B0, 0x3E8, 0x408, 0x410

_EFER = 1 << 12 | 1 << 11 | 1 << 10 | 1 << 8
"""SVME, which VMRUN demands; NXE, LMA, LME."""
_CR0 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1 << 0
"""PG, WP, NE, ET, MP, PE."""
_CR4 = 1 << 10 | 1 << 9 | 1 << 6 | 1 << 5
"""OSXMMEXCPT, OSFXSR, MCE, which KVM adds in any case (svm_set_cr4), PAE."""
_RFLAGS = 1 << 1
_DR6, _DR7 = 0xFFFF_0FF0, 0x400
_G_PAT = 0x0007_0406_0007_0406
_XCR0 = 1
_MXCSR, _FCW = 0x1F80, 0x037F


def write_vmsa(image: Image, base: int, c_bit: int) -> bytes:
    """The page for `image` loaded at mirror GPA `base`, on a part with that C-bit."""
    root = base + image.section(".tables").offset
    stack = image.section(".stack")
    page = bytearray(PAGE_BYTES)
    for offset, segment in _SEGMENTS.items():
        _SEGMENT.pack_into(page, offset, *segment)
    for offset, value in (
        (_EFER_OFFSET, _EFER),
        (_CR4_OFFSET, _CR4),
        (_CR3_OFFSET, root | 1 << c_bit),
        (_CR0_OFFSET, _CR0),
        (_DR7_OFFSET, _DR7),
        (_DR6_OFFSET, _DR6),
        (_RFLAGS_OFFSET, _RFLAGS),
        (_RIP_OFFSET, image.symbol("entry64").value),
        (_RSP_OFFSET, stack.va + stack.size),
        (_G_PAT_OFFSET, _G_PAT),
        (_SEV_FEATURES_OFFSET, 0),
        (_XCR0_OFFSET, _XCR0),
    ):
        struct.pack_into("<Q", page, offset, value)
    struct.pack_into("<I", page, _MXCSR_OFFSET, _MXCSR)
    struct.pack_into("<H", page, _FCW_OFFSET, _FCW)
    return bytes(page)
