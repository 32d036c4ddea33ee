"""One entry of the RMP, and the state of its page by name.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_rmp.h, sev_rmp.c (rmp_entry_get_state): fields, states, and the mark by
which the firmware tells a METADATA page from a FIRMWARE page; Linux, arch/x86/virt/svm/sev.c (struct rmpentry_raw).
"""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag
from typing import NamedTuple

from mh_builder.paging import LEAF_BYTES, PAGE_BYTES


class PageSize(IntEnum):
    """RMP.PageSize, and what instructions and commands call a size."""

    SMALL = 0
    LARGE = 1

    @property
    def bytes(self) -> int:
        """4 KiB or 2 MiB."""
        return LEAF_BYTES[self + 1]


class Perm(IntFlag):
    """What a VMPL may do with a page."""

    READ = 1 << 0
    WRITE = 1 << 1
    EXECUTE_USER = 1 << 2
    EXECUTE_SUPERVISOR = 1 << 3
    SHADOW_STACK = 1 << 4


ALL_PERMS = Perm(0x1F)
NO_PERMS = Perm(0)
VMPLS = 4

METADATA_MARK = 1 << 48
"""In the GPA of a METADATA page, beside the address of the guest's context: bits 38:36 of the field are 1."""


class PageState(Enum):
    """State of a page; what each one means for the fields is `RmpEntry.state`."""

    DEFAULT = "Default"
    """Beyond the RMP."""
    HYPERVISOR = "Hypervisor"
    HV_FIXED = "HV-Fixed"
    FIRMWARE = "Firmware"
    CONTEXT = "Context"
    METADATA = "Metadata"
    RECLAIM = "Reclaim"
    PRE_GUEST = "Pre-Guest"
    PRE_SWAP = "Pre-Swap"
    GUEST_INVALID = "Guest-Invalid"
    GUEST_VALID = "Guest-Valid"
    INVALID = "invalid"
    """Fields that make no state."""


_GUEST_STATES = {
    (False, True): PageState.PRE_GUEST,
    (True, True): PageState.PRE_SWAP,
    (False, False): PageState.GUEST_INVALID,
    (True, False): PageState.GUEST_VALID,
}
"""By validated and immutable."""


class RmpEntry(NamedTuple):
    """The entry of one page; an entry of 2 MiB speaks for the 511 pages behind it."""

    assigned: bool = False
    validated: bool = False
    immutable: bool = False
    vmsa: bool = False
    size: PageSize = PageSize.SMALL
    asid: int = 0
    gpa: int = 0
    perms: tuple[Perm, ...] = (ALL_PERMS, NO_PERMS, NO_PERMS, NO_PERMS)
    """Of VMPL0 to VMPL3."""

    @property
    def state(self) -> PageState:
        """The state that the firmware reads off the fields."""
        if self.asid:
            return _GUEST_STATES[self.validated, self.immutable] if self.assigned else PageState.INVALID
        if self.validated:
            return PageState.INVALID
        if not self.assigned:
            return PageState.HV_FIXED if self.immutable else PageState.HYPERVISOR
        if not self.immutable:
            return PageState.RECLAIM
        if self.gpa == 0:
            return PageState.CONTEXT if self.vmsa else PageState.FIRMWARE
        is_metadata = self.gpa // METADATA_MARK == 1 and self.gpa % METADATA_MARK
        return PageState.METADATA if is_metadata else PageState.INVALID

    @property
    def owner(self) -> int:
        """The context whose entries a METADATA page holds, by its address."""
        return self.gpa % METADATA_MARK


HYPERVISOR = RmpEntry()
SUBPAGE = RmpEntry(assigned=True)
"""What stands in the entries behind one of 2 MiB (AMD-ASPFW, snp_mcmd_page_unsmash)."""


def page_of(address: int) -> int:
    """The address of its 4 KiB page."""
    return address & -PAGE_BYTES
