"""The save area of an SEV-ES vCPU: where a VMSA, and a GHCB, hold which register.

Source: AMD64 APM volume 2, appendix B, table B-4; Linux, arch/x86/include/asm/svm.h (struct sev_es_save_area).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Segment(NamedTuple):
    """A segment register; `attributes` are bits 55:52 and 47:40 of the descriptor as one 12-bit number."""

    selector: int
    attributes: int
    limit: int
    base: int = 0


_SEGMENT = struct.Struct("<HHIQ")

SEGMENTS: Mapping[str, int] = MappingProxyType({
    "es": 0x000, "cs": 0x010, "ss": 0x020, "ds": 0x030, "fs": 0x040, "gs": 0x050,
    "gdtr": 0x060, "ldtr": 0x070, "idtr": 0x080, "tr": 0x090,
})  # fmt: skip
"""Offsets of the segment registers."""

_QUADWORDS: Mapping[str, int] = {
    "efer": 0x0D0, "xss": 0x140, "cr4": 0x148, "cr3": 0x150, "cr0": 0x158, "dr7": 0x160, "dr6": 0x168, "rflags": 0x170,
    "rip": 0x178, "rsp": 0x1D8, "rax": 0x1F8, "star": 0x200, "lstar": 0x208,
    "cstar": 0x210, "sfmask": 0x218, "kernel_gs_base": 0x220, "sysenter_cs": 0x228, "sysenter_esp": 0x230,
    "sysenter_eip": 0x238, "cr2": 0x240, "g_pat": 0x268, "dbgctl": 0x270, "rcx": 0x308, "rdx": 0x310, "rbx": 0x318,
    "rbp": 0x328, "rsi": 0x330, "rdi": 0x338, **{f"r{number}": 0x340 + 8 * (number - 8) for number in range(8, 16)},
    "sev_features": 0x3B0, "xcr0": 0x3E8,
}  # fmt: skip

_X87: Mapping[str, int] = {
    "x87_dp": 0x400,
    "ftw": 0x40C,
    "fsw": 0x40E,
    "fcw": 0x410,
    "fop": 0x412,
    "x87_rip": 0x418,
    "x87": 0x420,
}

OFFSETS: Mapping[str, int] = MappingProxyType({
    **_QUADWORDS, **_X87, "vmpl": 0x0CA, "cpl": 0x0CB, "pkru": 0x2E8, "mxcsr": 0x408, "xmm": 0x470,
})  # fmt: skip
"""Offsets of everything else that the project reads or writes; `x87` and `xmm` are the first of 8 and of 16.

FTW is as FXSAVE has it, for KVM copies it from there (sev_es_sync_vmsa).
"""

_SIZES = {"vmpl": 1, "cpl": 1, "pkru": 4, "mxcsr": 4, "ftw": 2, "fsw": 2, "fcw": 2, "fop": 2}


SNP_ACTIVE = 1 << 0
"""Of `sev_features`: the vCPU is one of an SNP guest (SVM_SEV_FEAT_SNP_ACTIVE)."""


def get(page: bytes | bytearray, name: str) -> int:
    """Read a register that is no segment and no vector."""
    start = OFFSETS[name]
    return int.from_bytes(page[start : start + _SIZES.get(name, 8)], "little")


def put(page: bytearray, name: str, value: int) -> None:
    """Write a register that is no segment and no vector."""
    start, size = OFFSETS[name], _SIZES.get(name, 8)
    page[start : start + size] = value.to_bytes(size, "little")


def get_segment(page: bytes | bytearray, name: str) -> Segment:
    """Read a segment register."""
    return Segment(*_SEGMENT.unpack_from(page, SEGMENTS[name]))


def put_segment(page: bytearray, name: str, segment: Segment) -> None:
    """Write a segment register."""
    _SEGMENT.pack_into(page, SEGMENTS[name], *segment)
