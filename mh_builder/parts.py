"""The AMD parts the machine can be: the figures that software sees through CPUID.

Source: CPUID dumps of real parts for 8000_0008 and 8000_001F (AMD64 APM volume 3, appendix E.4); QEMU,
target/i386/cpu.c (EPYC-Genoa) for LA57; Naples' cipher mode from Du et al., arXiv:1712.05090.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from mh_builder.paging import GIB, MIB, Geometry


class TweakMode(Enum):
    """Where the physical-address tweak T(P) enters the block cipher."""

    XE = "XE"
    """c = E(m ^ T(P))."""
    XEX = "XEX"
    """c = E(m ^ T(P)) ^ T(P)."""


class CpuidResult(NamedTuple):
    """The four registers that CPUID returns."""

    eax: int
    ebx: int
    ecx: int
    edx: int


NO_LEAF = CpuidResult(0, 0, 0, 0)

MAX_BASIC_LEAF = 7
MAX_EXTENDED_LEAF = 0x8000_001F
MAX_KVM_LEAF = 0x4000_0001

OSXSAVE = 1 << 27
_LEAF1_ECX = 1 << 0 | 1 << 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 26 | 1 << 30
_LEAF1_ECX_HYPERVISOR = 1 << 31
_LEAF1_EDX = 0x0789_FBFF
_LEAF7_EBX = 1 << 0 | 1 << 7 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23 | 1 << 24
_LA57 = 1 << 16
_EXTENDED1_ECX = 1 << 0 | 1 << 5
_PAGE_1G = 1 << 26
_EXTENDED1_EDX = 0x0183_FBFF | 1 << 11 | 1 << 20 | _PAGE_1G | 1 << 27 | 1 << 29

_SEV = 1 << 1
_SEV_ES = 1 << 3
_SME_COHERENT = 1 << 10


@dataclass(frozen=True, slots=True)
class Part:
    """One CPU generation; `physical_bits` is MAXPHYADDR, `reduction` what encryption takes from system addresses."""

    name: str
    signature: int
    """CPUID 0000_0001 EAX."""
    c_bit: int
    reduction: int
    physical_bits: int
    asids: int
    """CPUID 8000_001F ECX: ASIDs 1..asids can be encrypted."""
    min_asid: int
    """CPUID 8000_001F EDX: lowest ASID of a plain SEV guest, a setting of the platform's firmware."""
    coherent: bool
    """Caches are coherent between encryption domains."""
    tweak_mode: TweakMode
    vector_bits: int
    """Of the widest vectors on which it has AES and carry-less multiplication, as EVEX takes them or as VEX does."""
    firmware: str
    """Version of the secure processor's firmware, one of `mh_emulator.psp.build.BUILDS`."""
    levels: int = 4
    """Most levels of page tables that it walks: 5 with CPUID 0000_0007 ECX[16], LA57."""
    hides_ciphertext: bool = False
    """Whether its hosts can be kept from reading ciphertext of SNP guests: CIPHERTEXT_HIDING_DRAM, of Zen 5 (AMD 56860,
    FEATURE_INFO)."""

    @property
    def window_bit(self) -> int:
        """The bit of the address window that was proposed for mirror VMs, MAXPHYADDR - reduction - 1."""
        return self.physical_bits - self.reduction - 1

    @property
    def system_bits(self) -> int:
        """Width of a system physical address."""
        return self.physical_bits - self.reduction

    @property
    def largest_page(self) -> int:
        """Bytes of the largest page that the part translates."""
        return GIB if self.cpuid(0x8000_0001, 0, encrypted=True).edx & _PAGE_1G else 2 * MIB

    def geometry(self, *, encrypted: bool) -> Geometry:
        """How a guest's page-table entries are read; only an `encrypted` guest has a C-bit."""
        return Geometry(self.physical_bits, self.c_bit if encrypted else None)

    def cpuid(self, leaf: int, subleaf: int, *, encrypted: bool) -> CpuidResult:
        """Return what KVM shows a guest; leaves that it does not show are zero."""
        if leaf == 7:
            return CpuidResult(0, _LEAF7_EBX, _LA57 * (self.levels == 5), 0) if subleaf == 0 else NO_LEAF
        return self._leaves(encrypted).get(leaf, NO_LEAF)

    def _leaves(self, encrypted: bool) -> dict[int, CpuidResult]:  # noqa: FBT001
        amd = _vendor(b"AuthenticAMD")
        kvm = _vendor(b"KVMKVMKVM\0\0\0")
        leaves = {
            0: CpuidResult(MAX_BASIC_LEAF, amd[0], amd[2], amd[1]),
            1: CpuidResult(self.signature, 1 << 16 | 8 << 8, _LEAF1_ECX | _LEAF1_ECX_HYPERVISOR, _LEAF1_EDX),
            0x4000_0000: CpuidResult(MAX_KVM_LEAF, *kvm),
            0x8000_0000: CpuidResult(MAX_EXTENDED_LEAF, amd[0], amd[2], amd[1]),
            0x8000_0001: CpuidResult(self.signature, 0, _EXTENDED1_ECX, _EXTENDED1_EDX),
            0x8000_0008: CpuidResult(48 << 8 | self.physical_bits, 0, 0, 0),
        }
        if encrypted:
            features = _SEV | _SEV_ES | (_SME_COHERENT if self.coherent else 0)
            ebx = self.reduction << 6 | self.c_bit
            leaves[0x8000_001F] = CpuidResult(features, ebx, self.asids, self.min_asid)
        return leaves


def _vendor(name: bytes) -> tuple[int, int, int]:
    return (
        int.from_bytes(name[0:4], "little"),
        int.from_bytes(name[4:8], "little"),
        int.from_bytes(name[8:12], "little"),
    )


_XE, _XEX = TweakMode.XE, TweakMode.XEX

_ALL = (
    Part("naples", 0x0080_0F12, 47, 5, 48, 15, 5, coherent=False, tweak_mode=_XE, vector_bits=128, firmware="0.17.48"),
    Part("rome", 0x0083_0F10, 47, 5, 48, 509, 100, coherent=False, tweak_mode=_XEX, vector_bits=128,
         firmware="0.24.14"),
    Part("milan", 0x00A0_0F11, 51, 5, 48, 509, 100, coherent=True, tweak_mode=_XEX, vector_bits=256,
         firmware="1.55.29"),
    Part("genoa", 0x00A1_0F11, 51, 6, 52, 1006, 100, coherent=True, tweak_mode=_XEX, vector_bits=512,
         firmware="1.55.25", levels=5),
    Part("turin", 0x00B0_0F21, 51, 6, 52, 1006, 100, coherent=True, tweak_mode=_XEX, vector_bits=512,
         firmware="1.55.25", levels=5, hides_ciphertext=True),
)  # fmt: skip

PARTS: Mapping[str, Part] = MappingProxyType({part.name: part for part in _ALL})
"""The parts by name."""
