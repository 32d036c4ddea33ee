"""The SNP firmware: its commands, checked in the order of AMD's own source.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c, which AMD's SEV-SNP firmware ABI (56860) describes. Flags and
fields of a command's buffer are arguments here, so of its reserved bits only those in addresses can be wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from mh_emulator.dram.dram import Dram
from mh_emulator.psp.snp import launch, life, pages, platform, requests, swap
from mh_emulator.psp.snp.command import SnpCommand, SnpState
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart, LaunchUpdate
from mh_emulator.psp.snp.life import SnpGuestStatus
from mh_emulator.psp.snp.platform import Config, SnpPlatformStatus
from mh_emulator.psp.snp.processor import Board, SnpProcessor
from mh_emulator.psp.snp.requests import GuestRequest
from mh_emulator.psp.snp.swap import PageMove, Swap
from mh_emulator.psp.status import CommandError, Refused, Status
from mh_emulator.rmp.entry import PageSize
from mh_emulator.rmp.table import Rmp

P = ParamSpec("P")
T = TypeVar("T")

Watcher = Callable[[SnpCommand, Status], None]
_ON_ANY_MACHINE = Board()


class SnpFirmware:
    """The secure processor of one platform; every command raises `CommandError` unless it succeeds.

    A command that does not succeed changes nothing. Addresses are system physical ones. Raises `ValueError` for a part
    without SEV-SNP, and for an RMP of pages that are no DRAM.
    """

    def __init__(self, dram: Dram, rmp: Rmp, seed: int, board: Board = _ON_ANY_MACHINE) -> None:
        self._sp = SnpProcessor(dram, rmp, seed, board)
        self.watchers: list[Watcher] = []
        """Called with every command and what it returned."""

    @property
    def state(self) -> SnpState:
        """State of the platform."""
        return self._sp.state

    @property
    def chain(self) -> list[bytes]:
        """VCEK, ASK and ARK in DER, of the reported TCB; no command: AMD's server hands them out."""
        return self._sp.identity.chain(self._sp.tcb.reported)

    def wbinvd(self) -> None:
        """WBINVD on every core, which the processor sees; no command, but DF_FLUSH wants it."""
        self._sp.memory.flush_all()
        self._sp.asids.note_wbinvd()

    def is_runnable(self, asid: int) -> bool:
        """Whether VMRUN accepts `asid`: activated, and its guest running."""
        return self._sp.asids.is_runnable(asid)

    def init(self) -> None:
        """INIT."""
        self._run(SnpCommand.INIT, platform.init)

    def shutdown(self) -> None:
        """SHUTDOWN."""
        self._run(SnpCommand.SHUTDOWN, platform.shutdown)

    def platform_status(self) -> SnpPlatformStatus:
        """PLATFORM_STATUS."""
        return self._run(SnpCommand.PLATFORM_STATUS, platform.status)

    def df_flush(self) -> None:
        """DF_FLUSH: make the ASIDs of decommissioned guests usable again."""
        self._run(SnpCommand.DF_FLUSH, platform.df_flush)

    def config(self, wanted: Config) -> None:
        """CONFIG: what reports say of the platform."""
        self._run(SnpCommand.CONFIG, platform.config, wanted)

    def download_firmware_ex(self, snp_svn: int) -> None:
        """DOWNLOAD_FIRMWARE_EX: run firmware of another version, not committed yet."""
        self._run(SnpCommand.DOWNLOAD_FIRMWARE_EX, platform.download_firmware, snp_svn)

    def commit(self) -> None:
        """COMMIT: never go below the version that runs."""
        self._run(SnpCommand.COMMIT, platform.commit)

    def gctx_create(self, gctx: int) -> None:
        """GCTX_CREATE: turn a FIRMWARE page into the context of a new guest."""
        self._run(SnpCommand.GCTX_CREATE, life.gctx_create, gctx)

    def activate(self, gctx: int, asid: int) -> None:
        """ACTIVATE: bind the guest to `asid` and install its key in the memory controller."""
        self._run(SnpCommand.ACTIVATE, life.activate, gctx, asid)

    def decommission(self, gctx: int) -> None:
        """DECOMMISSION: forget the guest, and take its ASID."""
        self._run(SnpCommand.DECOMMISSION, life.decommission, gctx)

    def guest_status(self, gctx: int) -> SnpGuestStatus:
        """GUEST_STATUS."""
        return self._run(SnpCommand.GUEST_STATUS, life.guest_status, gctx)

    def launch_start(self, wanted: LaunchStart) -> None:
        """LAUNCH_START: choose the guest's keys."""
        self._run(SnpCommand.LAUNCH_START, launch.start, wanted)

    def launch_update(self, wanted: LaunchUpdate) -> None:
        """LAUNCH_UPDATE: measure a Pre-Guest page, encrypt it in place, and make it Guest-Valid."""
        self._run(SnpCommand.LAUNCH_UPDATE, launch.update, wanted)

    def launch_finish(self, wanted: LaunchFinish) -> None:
        """LAUNCH_FINISH: let the guest run."""
        self._run(SnpCommand.LAUNCH_FINISH, launch.finish, wanted)

    def guest_request(self, wanted: GuestRequest) -> None:
        """GUEST_REQUEST: carry out a guest's message."""
        self._run(SnpCommand.GUEST_REQUEST, requests.guest_request, wanted)

    def dbg_decrypt(self, gctx: int, source: int, destination: int) -> None:
        """DBG_DECRYPT: copy 4 KiB of private memory to where the host can read it."""
        self._run(SnpCommand.DBG_DECRYPT, pages.decrypt, gctx, source, destination)

    def dbg_encrypt(self, gctx: int, source: int, destination: int) -> None:
        """DBG_ENCRYPT: copy 4 KiB of host memory into private memory."""
        self._run(SnpCommand.DBG_ENCRYPT, pages.encrypt, gctx, source, destination)

    def swap_out(self, wanted: Swap) -> None:
        """SWAP_OUT: seal a page for storage."""
        self._run(SnpCommand.SWAP_OUT, swap.swap_out, wanted)

    def swap_in(self, wanted: Swap) -> None:
        """SWAP_IN: bring a sealed page back."""
        self._run(SnpCommand.SWAP_IN, swap.swap_in, wanted)

    def page_move(self, wanted: PageMove) -> None:
        """PAGE_MOVE: move a page to another system physical address."""
        self._run(SnpCommand.PAGE_MOVE, swap.page_move, wanted)

    def md_init(self, gctx: int, page: int) -> None:
        """MD_INIT: turn a FIRMWARE page into one of entries for swapped pages."""
        self._run(SnpCommand.MD_INIT, swap.md_init, gctx, page)

    def page_reclaim(self, page: int, size: PageSize = PageSize.SMALL) -> None:
        """PAGE_RECLAIM: give a page back to the host's RMPUPDATE."""
        self._run(SnpCommand.PAGE_RECLAIM, pages.reclaim, page, size)

    def page_unsmash(self, page: int) -> None:
        """PAGE_UNSMASH: join 512 pages."""
        self._run(SnpCommand.PAGE_UNSMASH, pages.unsmash, page)

    def _run(
        self, command: SnpCommand, body: Callable[Concatenate[SnpProcessor, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        status = Status.SUCCESS
        try:
            return body(self._sp, *args, **kwargs)
        except Refused as refusal:
            status = refusal.status
            raise CommandError(f"SNP_{command.name}", status) from None
        finally:
            for watcher in self.watchers:
                watcher(command, status)
