"""The architectural state of one vCPU.

Source of the state after RESET: AMD64 APM volume 2, section 14.1.3; Linux, arch/x86/kvm/svm/svm.c (init_vmcb).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

CR0_PE, CR0_MP, CR0_ET, CR0_NE, CR0_WP, CR0_PG = 1 << 0, 1 << 1, 1 << 4, 1 << 5, 1 << 16, 1 << 31
CR0_NW, CR0_CD = 1 << 29, 1 << 30
CR4_TSD, CR4_PAE, CR4_OSFXSR, CR4_OSXMMEXCPT = 1 << 2, 1 << 5, 1 << 9, 1 << 10
CR4_LA57, CR4_OSXSAVE, CR4_SMEP, CR4_SMAP = 1 << 12, 1 << 18, 1 << 20, 1 << 21
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = 1 << 0, 1 << 8, 1 << 10, 1 << 11
RFLAGS_FIXED, RFLAGS_TF, RFLAGS_IF, RFLAGS_NT, RFLAGS_RF, RFLAGS_AC = 1 << 1, 1 << 8, 1 << 9, 1 << 14, 1 << 16, 1 << 18
RFLAGS_VM = 1 << 17

XMM_COUNT = 16
X87_COUNT = 8
MXCSR_RESET = 0x1F80

GPR_NAMES = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)


def levels(cr4: int) -> int:
    """Levels of the page tables in long mode (AMD64 APM volume 2, section 5.3)."""
    return 5 if cr4 & CR4_LA57 else 4


class Table(NamedTuple):
    """GDTR or IDTR: linear base, and limit in bytes less one."""

    base: int = 0
    limit: int = 0


class SystemSegment(NamedTuple):
    """TR or LDTR with its hidden part; `attributes` are the descriptor's bits 55:40 without the limit."""

    selector: int = 0
    base: int = 0
    limit: int = 0
    attributes: int = 0


class Hidden(NamedTuple):
    """What a segment register has of its descriptor beside the base."""

    limit: int
    attributes: int
    """Bits 55:52 and 47:40 of the descriptor as one 12-bit number."""


SEGMENT_NAMES = ("es", "cs", "ss", "ds", "fs", "gs")
"""In the order of their numbers in instructions."""
_LONG = 1 << 9
"""L of a code segment's attributes."""
_CODE_64, _DATA_64 = Hidden(0xFFFF_FFFF, 0xA9B), Hidden(0xFFFF_FFFF, 0xC93)
_CODE_RESET, _DATA_RESET = Hidden(0xFFFF, 0x09B), Hidden(0xFFFF, 0x093)


class Segments(NamedTuple):
    """One for each segment register."""

    es: Hidden = _DATA_64
    cs: Hidden = _CODE_64
    ss: Hidden = _DATA_64
    ds: Hidden = _DATA_64
    fs: Hidden = _DATA_64
    gs: Hidden = _DATA_64


class X87(NamedTuple):
    """The state of x87, and so of MMX: MMi is the low 64 bits of Ri."""

    control: int = 0x037F
    status: int = 0
    used: int = 0
    """A bit for every register that is not empty: the tag word as FXSAVE has it."""
    registers: tuple[int, ...] = (0,) * X87_COUNT
    """R0..R7 as 80-bit numbers, whichever of them is the top of the stack."""


@dataclass(frozen=True, slots=True)
class Registers:
    """All that must move for a guest to go on elsewhere."""

    rip: int
    cr3: int
    rax: int = 0
    rcx: int = 0
    rdx: int = 0
    rbx: int = 0
    rsp: int = 0
    rbp: int = 0
    rsi: int = 0
    rdi: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rflags: int = RFLAGS_FIXED
    cs: int = 0x10
    """Selector; its two low bits are the privilege level, but in real mode."""
    ss: int = 0x18
    ds: int = 0
    es: int = 0
    fs: int = 0
    gs: int = 0
    hidden: Segments = field(default=Segments())
    es_base: int = 0
    cs_base: int = 0
    ss_base: int = 0
    ds_base: int = 0
    fs_base: int = 0
    gs_base: int = 0
    kernel_gs_base: int = 0
    gdtr: Table = field(default=Table())
    idtr: Table = field(default=Table())
    tr: SystemSegment = field(default=SystemSegment())
    ldtr: SystemSegment = field(default=SystemSegment())
    cr0: int = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG
    cr2: int = 0
    cr4: int = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT
    efer: int = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE
    star: int = 0
    lstar: int = 0
    sfmask: int = 0
    mxcsr: int = MXCSR_RESET
    xmm: tuple[int, ...] = field(default=(0,) * XMM_COUNT)
    """XMM0..15 as 128-bit numbers."""
    x87: X87 = field(default=X87())

    @classmethod
    def long_mode(cls, entry: int, stack: int, cr3: int) -> Registers:
        """Flat 64-bit state at privilege level 0 with interrupts off; `cr3` includes the C-bit."""
        return cls(rip=entry, rsp=stack, cr3=cr3)

    @classmethod
    def reset(cls, signature: int) -> Registers:
        """What RESET leaves: real mode, CS:IP F000:FFF0 at FFFF0000; RDX holds CPUID 0000_0001 EAX."""
        return cls(
            rip=0xFFF0,
            cr3=0,
            rdx=signature,
            cs=0xF000,
            cs_base=0xFFFF_0000,
            ss=0,
            hidden=Segments(*(_CODE_RESET if name == "cs" else _DATA_RESET for name in SEGMENT_NAMES)),
            gdtr=Table(limit=0xFFFF),
            idtr=Table(limit=0xFFFF),
            cr0=CR0_ET,
            cr4=0,
            efer=0,
        )

    @property
    def privilege(self) -> int:
        """CPL."""
        return self.cs & 3 if self.cr0 & CR0_PE else 0

    @property
    def is_64_bit(self) -> bool:
        """Whether it executes the instructions of 64-bit mode."""
        return bool(self.efer & EFER_LMA and self.hidden.cs.attributes & _LONG)

    def with_changes(self, **changes: object) -> Registers:
        """Return a copy with some registers replaced, by name."""
        return replace(self, **changes)  # type: ignore[arg-type]
