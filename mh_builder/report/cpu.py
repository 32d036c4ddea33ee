"""The registers of a dumped CPU that say how it translates, and what it makes of rights.

Source: AMD64 APM volume 2, sections 3.1.1 (CR0), 3.1.3 (CR4), 3.1.7 (EFER).
"""

from __future__ import annotations

from dataclasses import dataclass

from mh_builder.paging import PAE_LEVELS

_CR0_PG, _CR0_WP = 1 << 31, 1 << 16
_CR4_PAE, _CR4_LA57, _CR4_SMEP, _CR4_SMAP, _CR4_PKE = 1 << 5, 1 << 12, 1 << 20, 1 << 21, 1 << 22
_EFER_LMA, _EFER_NXE = 1 << 10, 1 << 11


@dataclass(frozen=True, slots=True)
class Cpu:
    """Control registers of one CPU; `efer` is None where the dump does not have it, as QEMU's notes do not."""

    cr0: int
    cr3: int
    cr4: int
    efer: int | None = None
    is_wide: bool = True
    """Whether it is in long mode, as its dump is made; EFER counts more."""

    @property
    def levels(self) -> int:
        """Levels of its page tables: 4 or 5 in long mode, else those of PAE."""
        is_long = self.is_wide if self.efer is None else bool(self.efer & _EFER_LMA)
        return PAE_LEVELS if not is_long else 5 if self.cr4 & _CR4_LA57 else 4

    @property
    def has_paging(self) -> bool:
        """Whether it translates at all."""
        return bool(self.cr0 & _CR0_PG)

    @property
    def has_wide_entries(self) -> bool:
        """Whether its tables have entries of 8 bytes, as those of long mode and of PAE."""
        return bool(self.cr4 & _CR4_PAE)

    @property
    def has_tables(self) -> bool:
        """Whether it has tables of a kind that is read."""
        return self.has_paging and self.has_wide_entries

    @property
    def protects_from_kernel(self) -> bool:
        """Whether read-only pages are read-only for the supervisor too."""
        return bool(self.cr0 & _CR0_WP)

    @property
    def executes_user_pages(self) -> bool:
        """Whether the supervisor can execute pages of user mode (no SMEP)."""
        return not self.cr4 & _CR4_SMEP

    @property
    def reaches_user_pages(self) -> bool:
        """Whether the supervisor can read and write pages of user mode at any time (no SMAP)."""
        return not self.cr4 & _CR4_SMAP

    @property
    def has_keys(self) -> bool:
        """Whether protection keys of user pages mean something."""
        return bool(self.cr4 & _CR4_PKE)

    @property
    def has_no_execute(self) -> bool | None:
        """Whether NX means something; without it, it is a reserved bit. None: not known."""
        return None if self.efer is None else bool(self.efer & _EFER_NXE)

    def summary(self) -> str:
        """The bits that a reader of tables wants to know, in words."""
        flags = {"WP": self.protects_from_kernel, "SMEP": not self.executes_user_pages}
        flags |= {"SMAP": not self.reaches_user_pages, "PKE": self.has_keys, "LA57": self.levels == 5}
        on = [name for name, value in flags.items() if value]
        off = [name for name, value in flags.items() if not value]
        nx = {None: "NXE not known", True: "NXE on", False: "NXE off"}[self.has_no_execute]
        return f"CR0 {self.cr0:#x}, CR4 {self.cr4:#x}: on {' '.join(on) or 'none'}, off {' '.join(off) or 'none'}, {nx}"
