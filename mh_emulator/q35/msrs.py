"""MSRs that KVM keeps for a vCPU and that firmware needs, as they are after RESET.

Source: Linux, arch/x86/kvm/x86.c (kvm_set_msr_common, set_msr_mce), arch/x86/kvm/mtrr.c; AMD64 APM volume 2,
sections 7.7 (MTRRs), 7.8 (PAT); QEMU, target/i386/cpu.h (MCE_BANKS_DEF).
"""

from __future__ import annotations

from types import MappingProxyType

from mh_emulator.q35 import lapic

_SYSENTER = range(0x174, 0x177)
_PATCH_LEVEL, _NORTHBRIDGE, _DECODE = 0x8B, 0xC001_001F, 0xC001_1029
_SYSCFG, _HWCR, _CSTAR, _TSC_AUX = 0xC001_0010, 0xC001_0015, 0xC000_0083, 0xC000_0103
_PERFORMANCE = (*range(0xC001_0000, 0xC001_0008), *range(0xC001_0200, 0xC001_020C))
_MTRR_CAP, _MTRR_DEFAULT, _PAT = 0x0FE, 0x2FF, 0x277
_VARIABLE = range(0x200, 0x210)
_FIXED = (0x250, 0x258, 0x259, *range(0x268, 0x270))
_CAP = 1 << 10 | 1 << 8 | len(_VARIABLE) // 2
_PAT_RESET = 0x0007_0406_0007_0406


_MCG_CAP, _MCG_STATUS, _MCG_CTL = range(0x179, 0x17C)
_BANKS = 10
_BANK_REGISTERS = range(0x400, 0x400 + 4 * _BANKS)
_ALL_ERRORS = (1 << 64) - 1
_MACHINE_CHECK = {
    _MCG_CAP: 1 << 24 | 1 << 8 | _BANKS,
    _MCG_CTL: _ALL_ERRORS,
    _MCG_STATUS: 0,
    **dict.fromkeys(_BANK_REGISTERS, 0),
    **dict.fromkeys(_BANK_REGISTERS[::4], _ALL_ERRORS),
}
"""What a part that shows MCA has; no error is ever in a bank."""


_WRITE_BACK_WITH_FIXED = 1 << 11 | 1 << 10 | 6
_KEPT = (*_SYSENTER, _PATCH_LEVEL, _NORTHBRIDGE, _DECODE, _SYSCFG, _HWCR, _CSTAR, _TSC_AUX, *_PERFORMANCE)
OF_LINUX = MappingProxyType(dict.fromkeys(_KEPT, 0) | _MACHINE_CHECK)
"""What Linux reads and writes of a processor beside what firmware needs; nothing comes of a write."""


def after_firmware() -> dict[int, int]:
    """As firmware leaves them to a kernel: all of memory is cached."""
    return after_reset() | OF_LINUX | {_MTRR_DEFAULT: _WRITE_BACK_WITH_FIXED}


def after_reset() -> dict[int, int]:
    """Index -> value."""
    return {
        lapic.BASE_MSR: lapic.BASE,
        _MTRR_CAP: _CAP,
        _MTRR_DEFAULT: 0,
        _PAT: _PAT_RESET,
        **dict.fromkeys((*_VARIABLE, *_FIXED), 0),
    }
