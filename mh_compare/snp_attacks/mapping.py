"""The host lies about memory: nested tables that lead to other pages than the RMP says."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_compare.arena import TRANSPORT_KEY, Op, Status
from mh_compare.attacks.mapping import stolen
from mh_compare.outcome import Outcome, by_status, detected, succeeds
from mh_compare.snp_arena import SnpArena, SnpSide
from mh_emulator.host.ring import HelperStopped
from mh_emulator.host.session import end_epoch
from mh_emulator.rmp.instructions import NewState


def swap_guest_pages(arena: SnpArena) -> Outcome:
    """Exchange two guest pages at the source, then migrate the first."""
    source, target = arena.connect()
    source.machine.exchange(*map(source.gpa, arena.ram[:2]))
    status = target.put(arena.address(0), source.export(arena.address(0)))
    if target.read_guest(arena.ram[0]) == arena.plaintext(1):
        return succeeds("the target's guest has the second page in the place of the first")
    return by_status(status, "the target's helper takes the packet")


def replace_helper(arena: SnpArena) -> Outcome:
    """Show a guest page, which holds what the host sent to the guest, in the place of the helper's code."""
    source = arena.source
    source.machine.exchange(_page(source, arena.offset("dispatch")), source.gpa(arena.ram[0]))
    source.ask(Op.MH_OP_HELLO)
    return stolen(source)


def export_helper(arena: SnpArena) -> Outcome:
    """Show the page of the owner's record at an unprotected address, then migrate that page."""
    source, target = arena.connect()
    source.machine.exchange(_page(source, arena.helper.descriptor.secret_offset), source.gpa(arena.ram[0]))
    status = target.put(arena.address(0), source.export(arena.address(0)))
    if TRANSPORT_KEY in target.read_guest(arena.ram[0]):
        return succeeds("the target's guest finds the transport key in its RAM; the host sees it sealed")
    return by_status(status, "the target's helper takes the packet")


def import_over_helper(arena: SnpArena) -> Outcome:
    """Show the target's helper its own code where a page is to come, then have it import that page."""
    source, target = arena.connect()
    sealed = source.export(arena.address(0))
    target.machine.exchange(_page(target, arena.offset("wipe_session")), target.gpa(arena.ram[0]))
    return by_status(target.put(arena.address(0), sealed), "the target writes over its helper")


def _page(side: SnpSide, offset: int) -> int:
    """GPA of the page that an offset in the helper is in."""
    return side.base + offset & -PAGE_BYTES


def validate_remapped(arena: SnpArena) -> Outcome:
    """Put another page behind one that has come, and have it come again: does the helper validate that too?"""
    source, target = arena.connect()
    address = arena.address(0)
    if target.put(address, source.export(address)) != Status.MH_DONE:
        raise AssertionError("the target refuses a faithful packet")
    host, gpa = target.platform.host, target.gpa(arena.ram[0])
    other = host.page()
    host.make_private(other, NewState(assigned=True, gpa=gpa, asid=target.asid))
    target.machine.vm.remap(gpa, other)
    end_epoch(source.ring, target.ring)
    sealed = source.export(address)
    try:
        return by_status(target.put(address, sealed), "the helper validates the page in its place")
    except HelperStopped:
        fault = target.ring.header().fault
        return detected(f"the helper wipes its keys and stops: vector {fault.vector}, error code {fault.error_code:#x}")
