"""Cases of pages: swapping, moving, reclaiming, debugging."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mh_builder.firmware.snp import VMSA_GPA, pages_at, vmsa_page
from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp.launch import LaunchStart
from mh_emulator.psp.snp.metadata import SwapType
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.psp.snp.swap import PageMove, Swap
from mh_emulator.rmp.entry import PageSize
from mh_emulator.rmp.instructions import NewState, rmpupdate
from mh_emulator.snp.host import Launched
from mh_emulator.snp.notes import Outcome
from mh_emulator.snp.stage import GPA, IMAGE, Stage


def md_init(stage: Stage) -> Outcome:
    """a FIRMWARE page becomes one of entries for a guest's swapped pages"""
    _metadata(stage, stage.guest())
    return stage.last()


def swap(stage: Stage) -> Outcome:
    """a page leaves memory under the guest's OEK, and comes back at another SPA as it was"""
    guest = stage.guest()
    mdata = _metadata(stage, guest)
    stored = _out(stage, guest, mdata)
    page = stage.host.give(guest.asid, 0)
    stage.attempt(lambda: stage.host.psp.swap_in(Swap(guest.gctx, stored, page, mdata)))
    return stage.last() if stage.host.dram.read_private(guest.asid, page, 6) == IMAGE[:6] else Outcome.REFUSED


def swap_out_in_use(stage: Stage) -> Outcome:
    """a page that the guest may still write is to leave"""
    guest = stage.guest()
    mdata, out = _metadata(stage, guest), stage.host.donate()
    stage.attempt(lambda: stage.host.psp.swap_out(Swap(guest.gctx, guest.pages[GPA], out, mdata)))
    return stage.last()


def swap_replay(stage: Stage) -> Outcome:
    """a swapped page is brought back twice, to have the guest see an old one"""
    guest = stage.guest()
    mdata = _metadata(stage, guest)
    stored = _out(stage, guest, mdata)
    for _ in range(2):
        page = stage.host.give(guest.asid, 0)
        stage.attempt(lambda: stage.host.psp.swap_in(Swap(guest.gctx, stored, page, mdata)))  # noqa: B023
    return stage.last()


def swap_changed(stage: Stage) -> Outcome:
    """the host changes a page while it is out"""
    guest = stage.guest()
    mdata = _metadata(stage, guest)
    stored = _out(stage, guest, mdata)
    changed = bytes([stage.host.dram.read_raw(stored, 1)[0] ^ 1]) + stage.host.dram.read_raw(stored + 1, 0xFFF)
    swap_in = Swap(guest.gctx, stage.host.page(changed), stage.host.give(guest.asid, 0), mdata)
    stage.attempt(lambda: stage.host.psp.swap_in(swap_in))
    return stage.last()


def swap_data_as_vmsa(stage: Stage) -> Outcome:
    """a page of data leaves and comes back as a VMSA, for the firmware does not compare with the RMP: VMRUN takes it"""
    guest = stage.guest()
    mdata = _metadata(stage, guest)
    stored = _out(stage, guest, mdata, SwapType.VMSA)
    page = stage.host.give(guest.asid, 0)
    back = Swap(guest.gctx, stored, page, mdata, SwapType.VMSA)
    if not stage.attempt(lambda: stage.host.psp.swap_in(back)):
        return Outcome.REFUSED
    stage.host.psp.page_reclaim(page)
    return Outcome.SUCCEEDS if stage.vmrun(guest.asid, page) else Outcome.REFUSED


def swap_vmsa(stage: Stage) -> Outcome:
    """a VMSA leaves and comes back"""
    guest = stage.guest([vmsa_page(bytes(PAGE_BYTES))])
    mdata = _metadata(stage, guest)
    stored = _out(stage, guest, mdata, SwapType.VMSA, VMSA_GPA)
    page = stage.host.give(guest.asid, 0)
    stage.attempt(lambda: stage.host.psp.swap_in(Swap(guest.gctx, stored, page, mdata, SwapType.VMSA)))
    return stage.last()


def page_move(stage: Stage) -> Outcome:
    """a page gets another SPA, and the guest sees no difference"""
    guest = stage.guest()
    source, target = _freeze(stage, guest), stage.host.give(guest.asid, 0)
    stage.host.psp.page_move(PageMove(guest.gctx, source, target))
    return stage.last()


def page_move_to_another_guest(stage: Stage) -> Outcome:
    """a page of one guest is to be moved into another one"""
    guest, other = stage.guest(), stage.guest()
    source, target = _freeze(stage, guest), stage.host.give(other.asid, 0)
    stage.attempt(lambda: stage.host.psp.page_move(PageMove(guest.gctx, source, target)))
    return stage.last()


def page_reclaim(stage: Stage) -> Outcome:
    """a page that the host has given to the firmware comes back"""
    spa = stage.host.donate()
    stage.host.psp.page_reclaim(spa)
    stage.instruction("RMPUPDATE", rmpupdate(stage.host.rmp, spa, NewState(assigned=False)))
    return stage.last()


def page_reclaim_context(stage: Stage) -> Outcome:
    """the host wants the page of a context while the guest is there"""
    guest = stage.guest()
    stage.attempt(lambda: stage.host.psp.page_reclaim(guest.gctx))
    return stage.last()


def page_unsmash(stage: Stage) -> Outcome:
    """512 pages of one guest become one of 2 MiB"""
    guest = stage.guest()
    head = stage.host.large_page()
    for offset in range(0, PageSize.LARGE.bytes, PAGE_BYTES):
        new = NewState(assigned=True, gpa=0x4000_0000 + offset, immutable=True, asid=guest.asid)
        stage.instruction("RMPUPDATE", rmpupdate(stage.host.rmp, head + offset, new))
    stage.host.psp.page_unsmash(head)
    return stage.last()


def debug(stage: Stage) -> Outcome:
    """the host reads a guest whose policy has DEBUG"""
    start = LaunchStart(stage.host.create(), DEFAULT_POLICY | SnpPolicy.DEBUG)
    guest = stage.guest(pages_at(GPA, IMAGE), start)
    seen = stage.host.donate()
    stage.attempt(lambda: stage.host.psp.dbg_decrypt(guest.gctx, guest.pages[GPA], seen))
    return stage.last()


def debug_without_policy(stage: Stage) -> Outcome:
    """the host reads a guest whose policy has no DEBUG"""
    guest, seen = stage.guest(), stage.host.donate()
    stage.attempt(lambda: stage.host.psp.dbg_decrypt(guest.gctx, guest.pages[GPA], seen))
    return stage.last()


def debug_write_without_policy(stage: Stage) -> Outcome:
    """the host writes into a guest whose policy has no DEBUG"""
    guest = stage.guest()
    page = _freeze(stage, guest)
    stage.attempt(lambda: stage.host.psp.dbg_encrypt(guest.gctx, stage.host.page(), page))
    return stage.last()


def _metadata(stage: Stage, guest: Launched) -> int:
    page = stage.host.donate()
    stage.host.psp.md_init(guest.gctx, page)
    return page


def _freeze(stage: Stage, guest: Launched, gpa: int = GPA) -> int:
    new = NewState(assigned=True, gpa=gpa, immutable=True, asid=guest.asid)
    stage.instruction("RMPUPDATE", rmpupdate(stage.host.rmp, guest.pages[gpa], new))
    return guest.pages[gpa]


def _out(stage: Stage, guest: Launched, mdata: int, kind: SwapType = SwapType.DATA, gpa: int = GPA) -> int:
    source, out = _freeze(stage, guest, gpa), stage.host.donate()
    stage.host.psp.swap_out(Swap(guest.gctx, source, out, mdata, kind))
    return out


PAGES: Mapping[str, Callable[[Stage], Outcome]] = MappingProxyType(
    {
        "md-init": md_init,
        "swap": swap,
        "swap-vmsa": swap_vmsa,
        "swap-out-in-use": swap_out_in_use,
        "swap-replay": swap_replay,
        "swap-changed": swap_changed,
        "swap-data-as-vmsa": swap_data_as_vmsa,
        "page-move": page_move,
        "page-move-to-another-guest": page_move_to_another_guest,
        "page-reclaim": page_reclaim,
        "page-reclaim-context": page_reclaim_context,
        "page-unsmash": page_unsmash,
        "debug": debug,
        "debug-without-policy": debug_without_policy,
        "debug-write-without-policy": debug_write_without_policy,
    }
)
