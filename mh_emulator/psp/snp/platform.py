"""The platform: SNP_INIT to SNP_SHUTDOWN, and which versions it reports.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c; DOWNLOAD_FIRMWARE_EX is reduced to what it does to the versions,
and that it refuses a version below the committed one with BAD_SVN is recollection of the ABI (56860).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from mh_emulator.psp.snp.command import SnpGuestState, SnpState
from mh_emulator.psp.snp.processor import SnpProcessor
from mh_emulator.psp.snp.tcb import Tcb
from mh_emulator.psp.status import Refused, Status, require


class SnpPlatformStatus(NamedTuple):
    """What PLATFORM_STATUS returns; the TCBs are packed numbers."""

    version: tuple[int, int, int]
    state: SnpState
    guests: int
    """Those that LAUNCH_START has started."""
    mask_chip_id: bool
    mask_chip_key: bool
    tcb: int
    reported_tcb: int


class Config(NamedTuple):
    """What CONFIG takes."""

    reported_tcb: int = 0
    """Packed; 0 for the committed one."""
    mask_chip_id: bool = False
    mask_chip_key: bool = False


def init(sp: SnpProcessor) -> None:
    """INIT: every page becomes the hypervisor's."""
    require(sp.state is SnpState.UNINIT, Status.INVALID_PLATFORM_STATE)
    sp.rmp.clear()
    sp.asids.reset()
    sp.state = SnpState.INIT


def shutdown(sp: SnpProcessor) -> None:
    """SHUTDOWN: only once no ASID is used, or dirty."""
    if sp.state is SnpState.UNINIT:
        return
    require(sp.asids.all_clean, Status.DF_FLUSH_REQUIRED)
    sp.guests.clear()
    sp.state = SnpState.UNINIT


def status(sp: SnpProcessor) -> SnpPlatformStatus:
    """PLATFORM_STATUS."""
    launched = sum(guest.state is not SnpGuestState.INIT for guest in sp.guests.values())
    part = sp.part.name
    tcb, reported = sp.tcb.current.pack(part), sp.tcb.reported.pack(part)
    return SnpPlatformStatus(
        sp.build.version, sp.state, launched, sp.mask_chip_id, sp.mask_chip_key, tcb, reported
    )  # fmt: skip


def df_flush(sp: SnpProcessor) -> None:
    """DF_FLUSH: it looks at no state."""
    sp.asids.flush()


def config(sp: SnpProcessor, wanted: Config) -> None:
    """CONFIG: it looks at no state, and accepts any version up to the committed one."""
    tcb = Tcb.parse(wanted.reported_tcb, sp.part.name)
    if tcb is None or tcb.exceeds(sp.tcb.committed):
        raise Refused(Status.INVALID_PARAM)
    sp.tcb.configured = tcb if wanted.reported_tcb else None
    sp.mask_chip_id, sp.mask_chip_key = wanted.mask_chip_id, wanted.mask_chip_key


def download_firmware(sp: SnpProcessor, snp_svn: int) -> None:
    """DOWNLOAD_FIRMWARE_EX without its COMMIT bit: run firmware of that version."""
    require(snp_svn >= sp.tcb.committed.snp, Status.BAD_SVN)
    sp.tcb.current = replace(sp.tcb.current, snp=snp_svn)


def commit(sp: SnpProcessor) -> None:
    """COMMIT: never go below what runs again."""
    sp.tcb.committed = sp.tcb.current
