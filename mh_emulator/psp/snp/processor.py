"""The state of the secure processor that all SNP commands share.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c: how every SNP command begins.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.dram import Dram
from mh_emulator.psp.asid import Asids
from mh_emulator.psp.build import BUILDS
from mh_emulator.psp.snp.command import SnpGuestState, SnpState
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.identity import ChipIdentity
from mh_emulator.psp.snp.tcb import FIRST_TCB, TCB_LAYOUTS, PlatformTcb
from mh_emulator.psp.status import Status, require
from mh_emulator.psp.system_memory import SystemMemory
from mh_emulator.rmp.entry import PageState, RmpEntry
from mh_emulator.rmp.table import Rmp


class Board(NamedTuple):
    """What the firmware sees of the rest of the machine."""

    smt: bool = True
    sockets: int = 1


class SnpProcessor:
    """What lies in memory that no x86 core reaches, and the way to the memory that they do."""

    def __init__(self, dram: Dram, rmp: Rmp, seed: int, board: Board) -> None:
        if dram.part.name not in TCB_LAYOUTS:
            raise ValueError(f"{dram.part.name} has no SEV-SNP, {', '.join(TCB_LAYOUTS)} have")
        if not dram.base_spa <= rmp.base <= dram.base_spa + dram.size - rmp.size:
            raise ValueError(
                f"RMP of {rmp.base:#x}..{rmp.base + rmp.size:#x} is not for DRAM of {dram.base_spa:#x}.."
                f"{dram.base_spa + dram.size:#x}"
            )
        self.part = dram.part
        self.board = board
        self.build = BUILDS[dram.part.firmware]
        self.random = random.Random(f"snp {seed}").randbytes  # noqa: S311
        self.identity = ChipIdentity(self.random, self.part.name)
        self.memory = SystemMemory(dram)
        self.rmp = rmp
        self.asids = Asids(dram)
        self.state = SnpState.UNINIT
        self.tcb = PlatformTcb(FIRST_TCB, FIRST_TCB)
        self.mask_chip_id = False
        self.mask_chip_key = False
        self.guests: dict[int, SnpGuest] = {}
        """By the address of the CONTEXT page."""

    def begin(self, *pages: int) -> tuple[int, ...]:
        """How most commands begin: addresses of pages, then the platform. Returns the addresses without the C-bit."""
        self.check_pages(*pages)
        self.need_platform()
        return tuple(map(self.memory.plain, pages))

    def check_pages(self, *pages: int) -> None:
        """Refuse an address whose low 12 bits, which are reserved, are not 0."""
        for page in pages:
            require(page % PAGE_BYTES == 0, Status.INVALID_PARAM)

    def need_platform(self) -> None:
        """Refuse a command before SNP_INIT."""
        require(self.state is SnpState.INIT, Status.INVALID_PLATFORM_STATE)

    def guest(self, gctx: int) -> SnpGuest:
        """The guest whose context is in the page; refused where the page is no context."""
        require(self.rmp.state(gctx) is PageState.CONTEXT, Status.INVALID_GUEST)
        return self.guests[gctx]

    def need_page(self, page: int, *states: PageState) -> RmpEntry:
        """The entry of a page; refused in another state."""
        require(self.rmp.state(page) in states, Status.INVALID_PAGE_STATE)
        return self.rmp.entry(page)

    def committed_tcb(self) -> int:
        """COMMITTED_TCB as a number."""
        return self.tcb.committed.pack(self.part.name)


def need_launched(guest: SnpGuest) -> None:
    """Refuse a guest that is neither in launch nor running, and then one without an ASID."""
    require(guest.state in (SnpGuestState.LAUNCH, SnpGuestState.RUNNING), Status.INVALID_GUEST_STATE)
    need_asid(guest)


def need_asid(guest: SnpGuest) -> None:
    """Refuse a guest that is not activated."""
    require(guest.asid, Status.INACTIVE)


def need_owner(entry: RmpEntry, guest: SnpGuest) -> None:
    """Refuse a page of another guest."""
    require(entry.asid == guest.asid, Status.INVALID_PAGE_OWNER)
