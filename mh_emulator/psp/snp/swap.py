"""Pages that leave memory and come back, and pages that move: MD_INIT, SWAP_OUT, SWAP_IN, PAGE_MOVE.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp import tsc
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.metadata import MDATA_BYTES, TAG_BYTES, Mdata, SwapType
from mh_emulator.psp.snp.processor import SnpProcessor, need_launched, need_owner
from mh_emulator.psp.status import Refused, Status, require
from mh_emulator.rmp.entry import METADATA_MARK, PageSize, PageState, RmpEntry, page_of

_IV_BYTES = 12
_IV_LIMIT = (1 << 64) - 2
_NO_GPA = -1 & (1 << 64) - 1 & -PAGE_BYTES
"""GPA in the entry of a METADATA page."""
_OUTSIDE = (PageState.FIRMWARE, PageState.DEFAULT)
_LEAVING = (PageState.PRE_SWAP, PageState.PRE_GUEST)


@dataclass(frozen=True, slots=True)
class Swap:
    """What SWAP_OUT and SWAP_IN take."""

    gctx: int
    source: int
    destination: int
    mdata: int | None
    """Address of the entry; None for the one in the context (ROOT_MDATA_EN)."""
    kind: int = SwapType.DATA
    size: PageSize = PageSize.SMALL
    software_data: int = 0
    """SWAP_OUT only."""
    in_place: bool = False
    """SWAP_IN only."""


@dataclass(frozen=True, slots=True)
class PageMove:
    """What PAGE_MOVE takes."""

    gctx: int
    source: int
    destination: int
    size: PageSize = PageSize.SMALL


def md_init(sp: SnpProcessor, gctx: int, page: int) -> None:
    """MD_INIT: make a page of empty entries for a guest."""
    gctx, page = sp.begin(gctx, page)
    guest = sp.guest(gctx)
    entry = sp.need_page(page, PageState.FIRMWARE)
    require(guest.state in (SnpGuestState.LAUNCH, SnpGuestState.RUNNING), Status.INVALID_GUEST_STATE)
    sp.memory.write(page, bytes(entry.size.bytes))
    sp.rmp.replace(page, entry._replace(gpa=gctx | METADATA_MARK))


def swap_out(sp: SnpProcessor, wanted: Swap) -> None:
    """SWAP_OUT: seal a page under the guest's OEK."""
    gctx, source, destination = sp.begin(wanted.gctx, wanted.source, wanted.destination)
    guest = sp.guest(gctx)
    _check_mdata(sp, guest, wanted)
    entry = sp.rmp.entry(source)
    _check_sizes(sp, wanted.size, (source, destination))
    need_launched(guest)
    require(wanted.kind in set(SwapType), Status.INVALID_PAGE_STATE)
    kind = SwapType(wanted.kind)
    states = (PageState.METADATA,) if kind is SwapType.METADATA else _LEAVING
    require(sp.rmp.state(source) in states and sp.rmp.state(destination) in _OUTSIDE, Status.INVALID_PAGE_STATE)
    _need_owner(entry, guest, kind)
    require(guest.oek_iv < _IV_LIMIT, Status.AEAD_OFLOW)
    data = _read(sp, guest, kind, source, wanted.size)
    sp.memory.check(destination, len(data))
    mdata = _describe(entry, kind, guest.oek_iv, wanted.software_data)
    guest.oek_iv += 1
    sealed = AESGCM(guest.oek).encrypt(mdata.iv.to_bytes(_IV_BYTES, "little"), data, None)
    sp.memory.write(destination, sealed[:-TAG_BYTES])
    sp.rmp.replace(source, entry._replace(gpa=0) if kind is SwapType.METADATA else entry._replace(validated=False))
    _write_mdata(sp, guest, wanted, replace(mdata, tag=sealed[-TAG_BYTES:]))


def swap_in(sp: SnpProcessor, wanted: Swap) -> None:
    """SWAP_IN: open a sealed page, once."""
    gctx, source, destination = sp.begin(wanted.gctx, wanted.source, wanted.destination)
    guest = sp.guest(gctx)
    _check_mdata(sp, guest, wanted)
    need_launched(guest)
    mdata = _read_mdata(sp, guest, wanted)
    kind = mdata.kind
    require(kind is not None and kind == wanted.kind and mdata.valid, Status.INVALID_MDATA_ENTRY)
    _check_sizes(sp, wanted.size, (destination, source))
    require(mdata.size is wanted.size, Status.INVALID_PAGE_SIZE)
    entry = _check_destination(sp, guest, mdata, replace(wanted, source=source, destination=destination))
    sealed = sp.memory.read(source, wanted.size.bytes, evict=True)
    try:
        data = AESGCM(guest.oek).decrypt(mdata.iv.to_bytes(_IV_BYTES, "little"), sealed + mdata.tag, None)
    except InvalidTag:
        raise Refused(Status.BAD_MEASUREMENT) from None
    sp.memory.check(destination, len(data))
    if mdata.metadata:
        sp.memory.write(destination, data)
    else:
        data = tsc.set_in_vmsa(data, guest.tsc_khz, guest.tsc_offset) if mdata.vmsa else data
        sp.memory.write_private(guest.asid, destination, data, evict=True)
    sp.rmp.replace(destination, _brought_back(guest, mdata, entry))
    _write_mdata(sp, guest, wanted, replace(mdata, valid=False))


def page_move(sp: SnpProcessor, wanted: PageMove) -> None:
    """PAGE_MOVE: a page gets another system physical address; what the guest sees stays."""
    gctx, source, destination = sp.begin(wanted.gctx, wanted.source, wanted.destination)
    guest = sp.guest(gctx)
    sizes = {sp.rmp.entry(page).size for page in (source, destination)}
    require(sizes == {wanted.size}, Status.INVALID_PAGE_SIZE)
    need_launched(guest)
    old, new = sp.rmp.entry(source), sp.rmp.entry(destination)
    states = sp.rmp.state(source), sp.rmp.state(destination)
    if states == (PageState.METADATA, PageState.FIRMWARE):
        _need_owner(old, guest, SwapType.METADATA)
        sp.memory.write(destination, sp.memory.read(source, wanted.size.bytes))
        sp.rmp.replace(source, old._replace(gpa=0))
        sp.rmp.replace(destination, new._replace(gpa=old.gpa))
        return
    require(states[0] in _LEAVING and states[1] is PageState.PRE_GUEST, Status.INVALID_PAGE_STATE)
    need_owner(old, guest)
    need_owner(new, guest)
    data = sp.memory.read_private(guest.asid, source, wanted.size.bytes)
    sp.memory.write_private(guest.asid, destination, data, evict=True)
    sp.rmp.replace(destination, old._replace(immutable=False))
    sp.rmp.replace(source, old._replace(validated=False, immutable=False))


def _check_mdata(sp: SnpProcessor, guest: SnpGuest, wanted: Swap) -> None:
    """Where an entry may lie."""
    if wanted.mdata is None:
        return
    mdata = sp.memory.plain(wanted.mdata)
    require(mdata % MDATA_BYTES == 0, Status.INVALID_PARAM)
    for page in (sp.memory.plain(wanted.source), sp.memory.plain(wanted.destination)):
        require(mdata + MDATA_BYTES <= page or page + wanted.size.bytes <= mdata, Status.INVALID_PARAM)
    entry = sp.need_page(page_of(mdata), PageState.METADATA)
    require(entry.owner == guest.gctx, Status.INVALID_PAGE_OWNER)


def _check_sizes(sp: SnpProcessor, size: PageSize, pages: tuple[int, int]) -> None:
    """The page of the guest, and one that may lie beyond the RMP."""
    own, other = pages
    is_good = sp.rmp.entry(own).size is size
    is_other_good = sp.rmp.state(other) is PageState.DEFAULT or sp.rmp.entry(other).size is size
    require(is_good and is_other_good, Status.INVALID_PAGE_SIZE)


def _need_owner(entry: RmpEntry, guest: SnpGuest, kind: SwapType) -> None:
    owner, own = (entry.owner, guest.gctx) if kind is SwapType.METADATA else (entry.asid, guest.asid)
    require(owner == own, Status.INVALID_PAGE_OWNER)


def _describe(entry: RmpEntry, kind: SwapType, iv: int, software_data: int) -> Mdata:
    if kind is SwapType.METADATA:
        return Mdata(software_data, iv, valid=True, metadata=True, size=entry.size, gpa=_NO_GPA)
    return Mdata(
        software_data, iv, valid=True, validated=entry.validated, vmsa=kind is SwapType.VMSA, size=entry.size,
        gpa=entry.gpa, perms=entry.perms,
    )  # fmt: skip


def _check_destination(sp: SnpProcessor, guest: SnpGuest, mdata: Mdata, wanted: Swap) -> RmpEntry:
    if mdata.metadata:
        require(not wanted.in_place, Status.INVALID_PARAM)
        return sp.need_page(wanted.destination, PageState.FIRMWARE)
    if mdata.vmsa:
        require(not wanted.in_place, Status.INVALID_PARAM)
        require(wanted.size is PageSize.SMALL, Status.INVALID_PAGE_SIZE)
    if wanted.in_place:
        require(wanted.source == wanted.destination, Status.INVALID_ADDRESS)
    entry = sp.need_page(wanted.destination, PageState.PRE_GUEST)
    need_owner(entry, guest)
    return entry


def _brought_back(guest: SnpGuest, mdata: Mdata, entry: RmpEntry) -> RmpEntry:
    if mdata.metadata:
        return entry._replace(gpa=guest.gctx | METADATA_MARK)
    return entry._replace(gpa=mdata.gpa, vmsa=mdata.vmsa, perms=mdata.perms, validated=mdata.validated)


def _read(sp: SnpProcessor, guest: SnpGuest, kind: SwapType, spa: int, size: PageSize) -> bytes:
    if kind is SwapType.METADATA:
        return sp.memory.read(spa, size.bytes)
    return sp.memory.read_private(guest.asid, spa, size.bytes)


def _read_mdata(sp: SnpProcessor, guest: SnpGuest, wanted: Swap) -> Mdata:
    return guest.root if wanted.mdata is None else Mdata.parse(sp.memory.read(wanted.mdata, MDATA_BYTES))


def _write_mdata(sp: SnpProcessor, guest: SnpGuest, wanted: Swap, mdata: Mdata) -> None:
    if wanted.mdata is None:
        guest.root = mdata
    else:
        sp.memory.write(wanted.mdata, mdata.pack())
