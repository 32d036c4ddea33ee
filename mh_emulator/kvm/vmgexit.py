"""VMGEXIT: what an SEV-ES guest asks for, in one MSR or in the page that it shares.

Source: Linux, arch/x86/kvm/svm/sev.c (sev_handle_vmgexit, sev_handle_vmgexit_msr_protocol, sev_es_validate_vmgexit),
arch/x86/include/asm/sev-common.h; GHCB specification (AMD 56421). String I/O, which KVM moves through the scratch
area, is for devices of the model (`string_io`): a host without them answers it as an invalid event.
"""

from __future__ import annotations

from enum import IntEnum

from mh_builder.parts import CpuidResult
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.kvm.ghcb import Ghcb, Malformed, MalformedError

GHCB_VERSION_MIN, GHCB_VERSION_MAX = 1, 2
HYPERVISOR_FEATURES = 1 << 0 | 1 << 1
"""GHCB_HV_FT_SUPPORTED: SNP, and creation of its APs."""

_INFO_MASK = 0xFFF


class Msr(IntEnum):
    """GHCBInfo, the low 12 bits of MSR 0xC0010130."""

    SEV_INFO = 0x001
    SEV_INFO_REQUEST = 0x002
    CPUID_REQUEST = 0x004
    CPUID_RESPONSE = 0x005
    AP_RESET_HOLD_REQUEST = 0x006
    AP_RESET_HOLD_RESPONSE = 0x007
    FEATURES_REQUEST = 0x080
    FEATURES_RESPONSE = 0x081
    TERMINATION_REQUEST = 0x100


class Event(IntEnum):
    """Exit codes that only software uses."""

    MMIO_READ = 0x8000_0001
    MMIO_WRITE = 0x8000_0002
    NMI_COMPLETE = 0x8000_0003
    AP_HLT_LOOP = 0x8000_0004
    AP_JUMP_TABLE = 0x8000_0005
    HV_FEATURES = 0x8000_FFFD
    TERM_REQUEST = 0x8000_FFFE
    UNSUPPORTED = 0x8000_FFFF


_IO_IN, _IO_STRING, _IO_PORT_SHIFT = 1 << 0, 1 << 2, 16
_IO_SIZES = {1 << 4: 1, 1 << 5: 2, 1 << 6: 4}

# What a request has to bring beside the exit code and its two words; IOIO, CPUID and MSR depend on these.
_NEEDS: dict[int, tuple[str, ...]] = {
    Code.READ_DR7: (),
    Code.WRITE_DR7: ("rax",),
    Code.RDTSC: (),
    Code.RDPMC: ("rcx",),
    Code.CPUID: ("rax", "rcx"),
    Code.INVD: (),
    Code.IOIO: (),
    Code.MSR: ("rcx",),
    Code.VMMCALL: ("rax", "cpl"),
    Code.RDTSCP: (),
    Code.WBINVD: (),
    Code.MONITOR: ("rax", "rcx", "rdx"),
    Code.MWAIT: ("rax", "rcx"),
    Event.MMIO_READ: ("scratch",),
    Event.MMIO_WRITE: ("scratch",),
    **dict.fromkeys((Event.NMI_COMPLETE, Event.AP_HLT_LOOP, Event.AP_JUMP_TABLE), ()),
    **dict.fromkeys((Event.HV_FEATURES, Event.TERM_REQUEST, Event.UNSUPPORTED), ()),
}
_XSAVE_LEAF = 0xD


def check(ghcb: Ghcb) -> int:
    """Return the exit code of a request that KVM takes; raise `MalformedError` for one that it does not."""
    if ghcb.usage:
        raise MalformedError(Malformed.INVALID_USAGE)
    if not ghcb.has("exit_code", "exit_info_1", "exit_info_2"):
        raise MalformedError(Malformed.MISSING_INPUT)
    code, info = ghcb.read("exit_code"), ghcb.read("exit_info_1")
    if code not in _NEEDS:
        raise MalformedError(Malformed.INVALID_EVENT)
    needed = _NEEDS[code]
    if code == Code.CPUID and ghcb.read("rax") == _XSAVE_LEAF:
        needed += ("xcr0",)
    if is_string(code, ghcb):
        needed += ("scratch",)
    elif code == Code.IOIO and not info & _IO_IN:
        needed += ("rax",)
    if code == Code.MSR and info:
        needed += ("rax", "rdx")
    if not ghcb.has(*needed):
        raise MalformedError(Malformed.MISSING_INPUT)
    return code


def is_string(code: int, ghcb: Ghcb) -> bool:
    """Whether the request is INS or OUTS."""
    return code == Code.IOIO and bool(ghcb.read("exit_info_1") & _IO_STRING)


def as_intercept(code: int, ghcb: Ghcb) -> Intercept:
    """The request as the exit that a guest without SEV-ES would have made."""
    info = ghcb.read("exit_info_1")
    if code == Code.IOIO:
        size = next((size for bit, size in _IO_SIZES.items() if info & bit), 0)
        return Intercept(Code.IOIO, port=info >> _IO_PORT_SHIFT & 0xFFFF, size=size, is_write=not info & _IO_IN)
    return Intercept(Code(code), is_write=code == Code.MSR and bool(info))


def sev_info(version: int, c_bit: int) -> int:
    """What the MSR holds at first, and after SEV_INFO_REQUEST."""
    return version << 48 | GHCB_VERSION_MIN << 32 | c_bit << 24 | Msr.SEV_INFO


def info_of(msr: int) -> int:
    """GHCBInfo; 0 where the MSR holds the address of a page."""
    return msr & _INFO_MASK


def cpuid_request(msr: int) -> tuple[int, int]:
    """Leaf, and the number of the register that is asked for: EAX, EBX, ECX, EDX."""
    return msr >> 32, msr >> 30 & 3


def cpuid_response(msr: int, result: CpuidResult) -> int:
    """The MSR with the register that was asked for in its upper half."""
    _, register = cpuid_request(msr)
    return result[register] << 32 | msr & 0xFFFF_F000 | Msr.CPUID_RESPONSE
