"""Pages of a host: PAGE_RECLAIM and PAGE_UNSMASH; and DBG_DECRYPT and DBG_ENCRYPT, where the owner allows debugging.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c.
"""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.policy import SnpPolicy
from mh_emulator.psp.snp.processor import SnpProcessor, need_owner
from mh_emulator.psp.status import Status, require
from mh_emulator.rmp.entry import PageSize, PageState, RmpEntry

_RECLAIMABLE = (PageState.METADATA, PageState.FIRMWARE, PageState.PRE_GUEST, PageState.PRE_SWAP)
_READABLE = (PageState.PRE_GUEST, PageState.PRE_SWAP, PageState.GUEST_INVALID, PageState.GUEST_VALID)
_WRITABLE = (PageState.PRE_SWAP, PageState.PRE_GUEST)


def reclaim(sp: SnpProcessor, page: int, size: PageSize) -> None:
    """PAGE_RECLAIM: make a page mutable, so that RMPUPDATE can take it."""
    (page,) = sp.begin(page)
    sp.memory.check(page, size.bytes)
    entry = sp.rmp.entry(page)
    require(entry.size is size, Status.INVALID_PAGE_SIZE)
    if not entry.immutable:
        return
    require(entry.state in _RECLAIMABLE, Status.INVALID_PAGE_STATE)
    gpa = entry.owner if entry.state is PageState.METADATA else entry.gpa
    sp.rmp.replace(page, entry._replace(immutable=False, gpa=gpa))


def unsmash(sp: SnpProcessor, page: int) -> None:
    """PAGE_UNSMASH: make one page of 2 MiB out of 512 that could be one."""
    require(page % PageSize.LARGE.bytes == 0, Status.INVALID_PARAM)
    (page,) = sp.begin(page)
    require(sp.rmp.covers(page), Status.INVALID_ADDRESS)
    first = sp.rmp.entry(page)
    is_head = first.immutable and first.asid and not first.vmsa and first.size is PageSize.SMALL
    require(is_head and first.gpa % PageSize.LARGE.bytes == 0, Status.INVALID_PAGE_STATE)
    for offset in range(0, PageSize.LARGE.bytes, PAGE_BYTES):
        expected = first._replace(gpa=first.gpa + offset)
        require(sp.rmp.entry(page + offset) == expected, Status.INVALID_PAGE_STATE)
    for offset in range(PAGE_BYTES, PageSize.LARGE.bytes, PAGE_BYTES):
        sp.rmp.forget(page + offset)
    sp.rmp.replace(page, first._replace(size=PageSize.LARGE))


def decrypt(sp: SnpProcessor, gctx: int, source: int, destination: int) -> None:
    """DBG_DECRYPT: 4 KiB of a guest's memory, also out of a page of 2 MiB, into a FIRMWARE page."""
    gctx, source, destination = sp.begin(gctx, source, destination)
    guest = sp.guest(gctx)
    entry = sp.rmp.covering(source)[1]
    is_readable = sp.rmp.covers(source) and entry.state in _READABLE
    require(is_readable and sp.rmp.state(destination) is PageState.FIRMWARE, Status.INVALID_PAGE_STATE)
    _need_debuggable(guest, entry)
    data = sp.memory.read_private(guest.asid, source, PAGE_BYTES)
    sp.memory.write(destination, data)


def encrypt(sp: SnpProcessor, gctx: int, source: int, destination: int) -> None:
    """DBG_ENCRYPT: 4 KiB of any memory into a page that the guest does not use yet, or any more."""
    sp.need_platform()
    gctx, source, destination = sp.begin(gctx, source, destination)
    guest = sp.guest(gctx)
    entry = sp.rmp.covering(destination)[1]
    is_writable = sp.rmp.covers(destination) and entry.state in _WRITABLE
    require(is_writable, Status.INVALID_PAGE_STATE)
    _need_debuggable(guest, entry)
    data = sp.memory.read(source, PAGE_BYTES, evict=True)
    sp.memory.write_private(guest.asid, destination, data, evict=True)


def _need_debuggable(guest: SnpGuest, entry: RmpEntry) -> None:
    need_owner(entry, guest)
    # The firmware looks at last whether the guest is active, but one that is not owns no page.
    require(guest.policy & SnpPolicy.DEBUG, Status.POLICY_FAILURE)
