"""The platform, and the life of guests on it: INIT to SHUTDOWN, ACTIVATE to DECOMMISSION.

Source: SEV API (AMD 55766), chapter 5 and sections 6.15 to 6.17; AMD-ASPFW, sev_mcmd.c, sev_guest.c.
"""

from __future__ import annotations

from typing import NamedTuple

from mh_emulator.psp.command import Command, GuestState, PlatformState
from mh_emulator.psp.identity import PlatformCertificates
from mh_emulator.psp.processor import Processor, need_asid
from mh_emulator.psp.status import Status, require
from mh_emulator.psp.vmsa import REGION_BYTES, TrustedRegion


class PlatformStatus(NamedTuple):
    """What PLATFORM_STATUS returns."""

    version: tuple[int, int, int]
    """API major, minor and build."""
    state: PlatformState
    es: bool
    guests: int


class GuestStatus(NamedTuple):
    """What GUEST_STATUS returns; all zero for an unknown handle."""

    policy: int
    asid: int
    state: GuestState


def init(sp: Processor, region_spa: int, region_bytes: int) -> None:
    """INIT."""
    sp.need_platform(Command.INIT)
    if region_spa:
        require(region_spa % REGION_BYTES == 0, Status.INVALID_ADDRESS)
        require(region_bytes == REGION_BYTES, Status.INVALID_LENGTH)
    sp.region_spa = region_spa
    sp.asids.reset()
    sp.state = PlatformState.INIT


def shutdown(sp: Processor) -> None:
    """SHUTDOWN."""
    sp.guests.clear()
    sp.region_spa, sp.region = 0, None
    sp.state = PlatformState.UNINIT


def status(sp: Processor) -> PlatformStatus:
    """PLATFORM_STATUS."""
    return PlatformStatus(sp.build.version, sp.state, bool(sp.region_spa), len(sp.guests))


def pdh_cert_export(sp: Processor) -> PlatformCertificates:
    """PDH_CERT_EXPORT."""
    sp.need_platform(Command.PDH_CERT_EXPORT)
    return sp.identity.certificates


def pdh_gen(sp: Processor) -> None:
    """PDH_GEN."""
    sp.need_platform(Command.PDH_GEN)
    sp.identity.renew_pdh()


def df_flush(sp: Processor) -> None:
    """DF_FLUSH: only now is it safe to keep checksums of VMSAs."""
    sp.need_platform(Command.DF_FLUSH)
    sp.asids.flush()
    if sp.region_spa and sp.region is None:
        sp.region = TrustedRegion(sp.region_spa)


def activate(sp: Processor, handle: int, asid: int) -> None:
    """ACTIVATE."""
    guest = sp.known(Command.ACTIVATE, handle)
    sp.asids.check_free(asid)
    require(not guest.asid, Status.ACTIVE)
    require(guest.state is not GuestState.SENT, Status.INVALID_GUEST_STATE)
    is_runnable = guest.state in (GuestState.RUNNING, GuestState.SUPDATE)
    sp.asids.give(asid, guest.key_seed, es=guest.es, runnable=is_runnable)
    guest.asid = asid


def deactivate(sp: Processor, handle: int) -> None:
    """DEACTIVATE."""
    guest = sp.known(Command.DEACTIVATE, handle)
    need_asid(guest)
    sp.asids.take(guest.asid)
    guest.asid = 0


def decommission(sp: Processor, handle: int) -> None:
    """DECOMMISSION."""
    guest = sp.known(Command.DECOMMISSION, handle)
    require(not guest.asid, Status.ACTIVE)
    if sp.region is not None:
        for address in guest.vmsas:
            sp.region.free(address)
    sp.guests.remove(guest)
    if not len(sp.guests):
        sp.state = PlatformState.INIT


def guest_status(sp: Processor, handle: int) -> GuestStatus:
    """GUEST_STATUS."""
    sp.need_platform(Command.GUEST_STATUS)
    guest = sp.guests.find(handle)
    if guest is None:
        return GuestStatus(0, 0, GuestState.UNINIT)
    return GuestStatus(guest.policy, guest.asid, guest.state)
