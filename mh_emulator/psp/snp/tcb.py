"""TCB_VERSION: security version numbers of what runs on a platform.

Source: Linux, include/linux/psp-sev.h and include/uapi/linux/psp-sev.h; AMD-ASPFW, sev_rmp.h (snp_tcb_version_t),
sev_mcmd.c (snp_mcmd_config, snp_mcmd_commit). The layout of Turin is that of Linux' snp_tcb_version_turin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_BYTE_BITS = 8
TCB_BYTES = 8

TCB_LAYOUTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "milan": ("boot_loader", "tee", "", "", "", "", "snp", "microcode"),
        "genoa": ("boot_loader", "tee", "", "", "", "", "snp", "microcode"),
        "turin": ("fmc", "boot_loader", "tee", "snp", "", "", "", "microcode"),
    }
)
"""What each byte is, by part; a part that is not here has no SEV-SNP."""


@dataclass(frozen=True, slots=True)
class Tcb:
    """One TCB_VERSION; `fmc` is there on Turin only."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int = 0

    def pack(self, part: str) -> int:
        """The 64-bit number."""
        numbers = (getattr(self, name) if name else 0 for name in TCB_LAYOUTS[part])
        return sum(number << _BYTE_BITS * at for at, number in enumerate(numbers))

    @classmethod
    def parse(cls, value: int, part: str) -> Tcb | None:
        """The version; None where a reserved byte is not 0."""
        named = dict(zip(TCB_LAYOUTS[part], value.to_bytes(TCB_BYTES, "little"), strict=True))
        numbers = {name: number for name, number in named.items() if name}
        tcb = cls(**numbers)
        return tcb if tcb.pack(part) == value else None

    def exceeds(self, other: Tcb) -> bool:
        """Whether any of its numbers is above that of `other`."""
        names = ("fmc", "boot_loader", "tee", "snp", "microcode")
        return any(getattr(self, name) > getattr(other, name) for name in names)


@dataclass(slots=True)
class PlatformTcb:
    """The versions that a platform knows of itself."""

    current: Tcb
    """What runs."""
    committed: Tcb
    """Below which it never goes again."""
    configured: Tcb | None = None
    """What CONFIG has asked reports to say."""

    @property
    def reported(self) -> Tcb:
        """REPORTED_TCB: the VCEK is that of this version."""
        return self.configured or self.committed


FIRST_TCB = Tcb(boot_loader=4, tee=1, snp=22, microcode=72)
"""Of a platform that nobody has updated; the numbers are the model's own."""
