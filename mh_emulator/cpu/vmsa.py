"""The VMSA: what KVM makes of registers before the launch, and what VMRUN and every exit move.

Source: AMD64 APM volume 2, section 15.35 (SEV-ES) and appendix B; Linux, arch/x86/kvm/svm/sev.c (sev_es_sync_vmsa).
"""

from __future__ import annotations

from collections.abc import Mapping

from mh_builder.paging import PAGE_BYTES
from mh_builder.save_area import OFFSETS, Segment, get, get_segment, put, put_segment
from mh_emulator.cpu.msr import SAVED
from mh_emulator.cpu.registers import (
    GPR_NAMES,
    SEGMENT_NAMES,
    X87,
    X87_COUNT,
    XMM_COUNT,
    Hidden,
    Registers,
    Segments,
    SystemSegment,
    Table,
)
from mh_emulator.cpu.segments import from_descriptor, to_descriptor

CR4_MCE = 1 << 6
EFER_SVME = 1 << 12

_PLAIN = (*GPR_NAMES, "rip", "rflags", "cr0", "cr2", "cr3", "kernel_gs_base", "star", "lstar", "sfmask")
_XMM_BYTES = 16
_LDT_RESET, _TR_RESET = Segment(0, 0x082, 0xFFFF), Segment(0, 0x08B, 0xFFFF)

_FIXED = {
    "dr6": 0xFFFF_0FF0,
    "dr7": 0x400,
    "g_pat": 0x0007_0406_0007_0406,
    "xcr0": 1,
}
_X87_BYTES = 10


def make(registers: Registers, *, fpu: bool, features: int = 0) -> bytes:
    """The page before its encryption; without `fpu`, as KVM_SEV_ES_INIT has it, x87 and SSE state is zero.

    `features` are SEV_FEATURES.
    """
    page = bytearray(PAGE_BYTES)
    for name, value in _FIXED.items():
        put(page, name, value)
    put(page, "sev_features", features)
    put_segment(page, "ldtr", _LDT_RESET)
    put_segment(page, "tr", _TR_RESET)
    if not fpu:
        registers = registers.with_changes(mxcsr=0, xmm=(0,) * XMM_COUNT, x87=X87(control=0))
    return store(bytes(page), registers.with_changes(cr4=registers.cr4 | CR4_MCE))


def store(page: bytes, registers: Registers) -> bytes:
    """`page` with the state of a vCPU that has left the guest."""
    new = bytearray(page)
    for name in _PLAIN:
        put(new, name, getattr(registers, name))
    put(new, "cr4", registers.cr4)
    put(new, "efer", registers.efer | EFER_SVME)
    put(new, "mxcsr", registers.mxcsr)
    put(new, "cpl", registers.privilege)
    for name, (limit, attributes) in zip(SEGMENT_NAMES, registers.hidden, strict=True):
        selector, base = getattr(registers, name), getattr(registers, f"{name}_base")
        put_segment(new, name, Segment(selector, attributes, limit, base))
    for name in ("gdtr", "idtr"):
        table: Table = getattr(registers, name)
        put_segment(new, name, Segment(0, 0, table.limit, table.base))
    for name in ("ldtr", "tr"):
        _put_system(new, name, getattr(registers, name))
    put(new, "fcw", registers.x87.control)
    put(new, "fsw", registers.x87.status)
    put(new, "ftw", registers.x87.used)
    _put_vector(new, "x87", registers.x87.registers, _X87_BYTES)
    _put_vector(new, "xmm", registers.xmm, _XMM_BYTES)
    return bytes(new)


def load(page: bytes) -> Registers:
    """The state that VMRUN gives the CPU."""
    gdtr, idtr = (get_segment(page, name) for name in ("gdtr", "idtr"))
    segments = {name: get_segment(page, name) for name in SEGMENT_NAMES}
    return Registers(
        **{name: get(page, name) for name in _PLAIN},
        **{name: segment.selector for name, segment in segments.items()},
        **{f"{name}_base": segment.base for name, segment in segments.items()},
        hidden=Segments(*(Hidden(segment.limit, segment.attributes) for segment in segments.values())),
        gdtr=Table(gdtr.base, gdtr.limit),
        idtr=Table(idtr.base, idtr.limit),
        tr=_system(get_segment(page, "tr")),
        ldtr=_system(get_segment(page, "ldtr")),
        cr4=get(page, "cr4"),
        efer=get(page, "efer") & ~EFER_SVME,
        mxcsr=get(page, "mxcsr"),
        xmm=_get_vector(page, "xmm", XMM_COUNT, _XMM_BYTES),
        x87=X87(get(page, "fcw"), get(page, "fsw"), get(page, "ftw"), _get_vector(page, "x87", X87_COUNT, _X87_BYTES)),
    )


def store_msrs(page: bytes, values: Mapping[int, int]) -> bytes:
    """`page` with MSRs of `SAVED`, by index."""
    new = bytearray(page)
    for index, value in values.items():
        put(new, SAVED[index], value)
    return bytes(new)


def load_msrs(page: bytes) -> dict[int, int]:
    """All MSRs of `SAVED`, by index."""
    return {index: get(page, name) for index, name in SAVED.items()}


def _put_vector(page: bytearray, name: str, values: tuple[int, ...], size: int) -> None:
    start = OFFSETS[name]
    page[start : start + size * len(values)] = b"".join(value.to_bytes(size, "little") for value in values)


def _get_vector(page: bytes, name: str, count: int, size: int) -> tuple[int, ...]:
    start = OFFSETS[name]
    return tuple(int.from_bytes(page[at : at + size], "little") for at in range(start, start + count * size, size))


def _put_system(page: bytearray, name: str, segment: SystemSegment) -> None:
    """Write TR or LDTR; one that was never loaded keeps what reset gives it."""
    if segment != SystemSegment():
        attributes = from_descriptor(segment.attributes)
        put_segment(page, name, Segment(segment.selector, attributes, segment.limit, segment.base))


def _system(segment: Segment) -> SystemSegment:
    return SystemSegment(segment.selector, segment.base, segment.limit, to_descriptor(segment.attributes))
