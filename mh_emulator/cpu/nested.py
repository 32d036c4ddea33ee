"""The second translation of a CPU, from guest-physical to system physical addresses, and what the RMP says to it.

Source: AMD64 APM volume 2, sections 15.25 (nested paging) and 15.36 (SEV-SNP); the checks are `mh_emulator.rmp.access`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NoReturn, Protocol

from mh_builder.paging import PAGE_BYTES, Geometry
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.ranges import NativeRanges
from mh_emulator.rmp.access import Access, Guest, Kind, guest_access
from mh_emulator.rmp.fault import ErrorCode, Fault, Trap
from mh_emulator.rmp.instructions import GuestPage
from mh_emulator.rmp.table import Rmp


class NestedFaultError(Exception):
    """The nested page tables or the RMP let nobody through: an exit to the hypervisor."""

    def __init__(self, gpa: int, error: int, reason: str) -> None:
        super().__init__(f"{reason} at {gpa:#x}")
        self.gpa = gpa
        self.error = error
        """EXITINFO1 where it was an access with the C-bit or the RMP forbids it, else 0: then the guest gets #VC."""


class NoSlotError(NestedFaultError):
    """The guest-physical address has no memory behind it."""

    def __init__(self, gpa: int) -> None:
        super().__init__(gpa, 0, "no memory slot")


class AbsentError(NestedFaultError):
    """The page is to come: the host's process is told that it is needed."""

    def __init__(self, gpa: int) -> None:
        super().__init__(gpa, 0, "a page that is to come")


class RmpFaultError(NestedFaultError):
    """The RMP forbids the access."""

    def __init__(self, gpa: int, error: int) -> None:
        super().__init__(gpa, error, f"RMP fault {error:#x}")


class NotValidatedError(Exception):
    """The guest has not validated the page: #VC for itself."""

    def __init__(self, error_code: int) -> None:
        super().__init__(error_code)
        self.error_code = error_code


class GuestPhysical(Protocol):
    """A guest's physical address space."""

    dram: Dram
    geometry: Geometry
    rmp: Rmp | None
    """Of an SNP guest."""

    @property
    def ranges(self) -> NativeRanges:
        """What `spa` goes by, for native code."""

    @property
    def key(self) -> bytes | None:
        """Memory key of an encrypted guest."""

    @property
    def asid(self) -> int:
        """ASID, 0 without SEV."""

    @property
    def absent(self) -> Collection[int]:
        """GPAs of pages that are to come."""

    def spa(self, gpa: int) -> int | None:
        """System physical address behind `gpa`."""


class Nested:
    """The second translation of one CPU."""

    def __init__(self, guest: GuestPhysical) -> None:
        self._guest = guest
        self.vmpl = 0
        """That of the VMSA that runs."""

    def spa(self, gpa: int, kind: Kind, *, private: bool = True, user: bool = False) -> int:
        """Where the access goes. Raises `NestedFaultError` or `NotValidatedError`."""
        rmp = self._guest.rmp
        if rmp is None:
            return self.locate(gpa)
        spa = self._guest.spa(gpa)
        access = Access(kind, gpa, spa or 0, private, user)
        if spa is None and access.encrypted:
            raise NestedFaultError(gpa, ErrorCode.ENCRYPTED, "no memory slot")
        fault = None if spa is None else guest_access(rmp, self.guest, access)
        if fault is not None:
            self.refuse(fault, gpa)
        return self.locate(gpa) if spa is None or self._guest.absent else spa

    def locate(self, gpa: int) -> int:
        """Where `gpa` is, whatever the RMP says. Raises `NoSlotError`, `AbsentError`."""
        if gpa & -PAGE_BYTES in self._guest.absent:
            raise AbsentError(gpa)
        spa = self._guest.spa(gpa)
        if spa is None:
            raise NoSlotError(gpa)
        return spa

    def allows(self, gpa: int, kind: Kind, *, private: bool, user: bool) -> bool:
        """Whether an access like one that was let through would be, too."""
        rmp = self._guest.rmp
        return rmp is None or guest_access(rmp, self.guest, Access(kind, gpa, self.locate(gpa), private, user)) is None

    def page(self, gpa: int) -> GuestPage:
        """The 4 KiB page of `gpa`, as an operand of instructions. Raises `NoSlotError`."""
        return GuestPage(gpa, self.locate(gpa))

    @property
    def guest(self) -> Guest:
        """Who runs, as the RMP knows it."""
        return Guest(self._guest.asid, self.vmpl)

    def refuse(self, fault: Fault, gpa: int) -> NoReturn:
        """Raise what comes of a fault."""
        if fault.trap is Trap.VMM_COMMUNICATION:
            raise NotValidatedError(fault.code)
        raise RmpFaultError(gpa, fault.code)
