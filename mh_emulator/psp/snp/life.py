"""The life of a guest on the platform: GCTX_CREATE to DECOMMISSION.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c.
"""

from __future__ import annotations

from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.crypto import KEY_BYTES
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.policy import SnpPolicy
from mh_emulator.psp.snp.processor import SnpProcessor
from mh_emulator.psp.status import Status, require
from mh_emulator.rmp.entry import PageSize, PageState

_COUNTERS = 2048
"""ASIDs that the RMP counts pages for."""


class SnpGuestStatus(NamedTuple):
    """What GUEST_STATUS returns."""

    policy: int
    asid: int
    state: SnpGuestState
    vcek_dis: bool


def gctx_create(sp: SnpProcessor, gctx: int) -> None:
    """GCTX_CREATE."""
    (gctx,) = sp.begin(gctx)
    entry = sp.need_page(gctx, PageState.FIRMWARE)
    require(entry.size is PageSize.SMALL, Status.INVALID_PAGE_SIZE)
    sp.memory.write(gctx, bytes(PAGE_BYTES))
    sp.guests[gctx] = SnpGuest(gctx, sp.random(KEY_BYTES), sp.committed_tcb())
    sp.rmp.replace(gctx, entry._replace(vmsa=True))


def activate(sp: SnpProcessor, gctx: int, asid: int) -> None:
    """ACTIVATE: bind the guest to an ASID to which no page is assigned."""
    (gctx,) = sp.begin(gctx)
    guest = sp.guest(gctx)
    require(guest.state in (SnpGuestState.LAUNCH, SnpGuestState.RUNNING), Status.INVALID_GUEST_STATE)
    require(asid < _COUNTERS, Status.INVALID_ASID)
    require(not sp.rmp.pages_of(asid), Status.INVALID_CONFIG)
    require(not guest.policy & SnpPolicy.SINGLE_SOCKET or sp.board.sockets == 1, Status.POLICY_FAILURE)
    sp.asids.check_free(asid)
    require(not guest.asid, Status.ACTIVE)
    sp.asids.give(asid, guest.key_seed, es=True, runnable=guest.state is SnpGuestState.RUNNING)
    guest.asid = asid


def decommission(sp: SnpProcessor, gctx: int) -> None:
    """DECOMMISSION: in every state, and active guests too."""
    (gctx,) = sp.begin(gctx)
    forget(sp, sp.guest(gctx))


def guest_status(sp: SnpProcessor, gctx: int) -> SnpGuestStatus:
    """GUEST_STATUS; it is returned and not written to a page."""
    (gctx,) = sp.begin(gctx)
    guest = sp.guest(gctx)
    return SnpGuestStatus(guest.policy, guest.asid, guest.state, guest.identity.vcek_dis)


def forget(sp: SnpProcessor, guest: SnpGuest) -> None:
    """Deactivate a guest, and turn its context into a FIRMWARE page."""
    if guest.asid:
        sp.asids.take(guest.asid)
    del sp.guests[guest.gctx]
    sp.rmp.replace(guest.gctx, sp.rmp.entry(guest.gctx)._replace(vmsa=False))
