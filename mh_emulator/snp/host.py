"""A host that launches SNP guests: it moves pages with RMPUPDATE and gives commands to the secure processor.

Source: Linux, arch/x86/kvm/svm/sev.c (snp_launch_start, sev_gmem_post_populate, snp_launch_finish), as its steps go;
nothing of KVM's own rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mh_builder.firmware.snp import PageType, SnpPage
from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.parts import Part
from mh_emulator.dram.dram import Dram
from mh_emulator.kvm.host_memory import RmpUpdateError
from mh_emulator.psp.snp.firmware import SnpFirmware
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart, LaunchUpdate
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.rmp.entry import PageSize
from mh_emulator.rmp.instructions import Code, NewState, rmpupdate
from mh_emulator.rmp.table import Rmp

BASE_SPA = 0x10_0000_0000
DRAM_BYTES = 16 * MIB
SECRETS_GPA = 0x80_D000
FIRST_ASID = 1


@dataclass(slots=True)
class Launched:
    """A guest, as its host knows it."""

    gctx: int
    asid: int
    pages: dict[int, int]
    """GPA -> SPA of what was launched; of VMSAs the last one."""


class SnpHost:
    """One machine, after SNP_INIT."""

    def __init__(self, part: Part, seed: int, size: int = DRAM_BYTES) -> None:
        self.dram = Dram(size, BASE_SPA, part, seed)
        self.rmp = Rmp(BASE_SPA, size)
        self.psp = SnpFirmware(self.dram, self.rmp, seed)
        self._next = BASE_SPA
        self._asids = FIRST_ASID
        self.psp.init()
        self.psp.wbinvd()
        self.psp.df_flush()

    def page(self, data: bytes = b"") -> int:
        """A page of the host's own, with `data`."""
        spa = self._next
        self._next += PAGE_BYTES
        self.dram.write_raw(spa, data.ljust(PAGE_BYTES, b"\0"))
        return spa

    def large_page(self) -> int:
        """2 MiB of the host's own, aligned."""
        self._next = -(-self._next // PageSize.LARGE.bytes) * PageSize.LARGE.bytes + PageSize.LARGE.bytes
        return self._next - PageSize.LARGE.bytes

    def update(self, spa: int, new: NewState) -> None:
        """RMPUPDATE. Raises `RmpUpdateError`."""
        code = rmpupdate(self.rmp, spa, new)
        if code is not Code.SUCCESS:
            raise RmpUpdateError(spa, code)

    def donate(self) -> int:
        """A page for the secure processor."""
        spa = self.page()
        self.update(spa, NewState(assigned=True, immutable=True))
        return spa

    def give(self, asid: int, gpa: int, data: bytes = b"") -> int:
        """A Pre-Guest page with `data` in clear."""
        spa = self.page(data)
        self.update(spa, NewState(assigned=True, gpa=gpa, immutable=True, asid=asid))
        return spa

    def create(self) -> int:
        """The context of a new guest."""
        gctx = self.donate()
        self.psp.gctx_create(gctx)
        return gctx

    def start(self, pages: Iterable[SnpPage], wanted: LaunchStart | None = None) -> Launched:
        """Launch `pages`, and a secrets page behind them if there is none; not finished yet."""
        start = wanted or LaunchStart(self.create(), DEFAULT_POLICY)
        self.psp.launch_start(start)
        guest = Launched(start.gctx, self._asids, {})
        self._asids += 1
        self.psp.activate(guest.gctx, guest.asid)
        launched = list(pages)
        if not any(page.kind is PageType.SECRETS for page in launched):
            launched.append(SnpPage(PageType.SECRETS, SECRETS_GPA, imi=start.imi_en))
        for page in launched:
            self.launch(guest, page)
        return guest

    def launch(self, guest: Launched, page: SnpPage) -> None:
        """One page of a launch."""
        spa = self.give(guest.asid, page.gpa, page.contents)
        self.psp.launch_update(LaunchUpdate(guest.gctx, spa, page.kind, imi=page.imi, vmpl=page.vmpl))
        guest.pages[page.gpa] = spa

    def run(self, pages: Iterable[SnpPage], wanted: LaunchStart | None = None) -> Launched:
        """Launch a guest, and let it run."""
        guest = self.start(pages, wanted)
        self.psp.launch_finish(LaunchFinish(guest.gctx))
        return guest
