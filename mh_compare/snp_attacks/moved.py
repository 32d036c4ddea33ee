"""The host against a guest that has left, or that has not come yet."""

from __future__ import annotations

from collections.abc import Callable

from mh_abi import abi
from mh_compare.arena import Role, Status
from mh_compare.outcome import Outcome, refused, succeeds
from mh_compare.snp_arena import SnpArena, SnpSide
from mh_emulator.host.ring import HelperRefused
from mh_emulator.host.session import begin, end_epoch, greet
from mh_emulator.host.snp_migration import move
from mh_emulator.kvm.exits import Reason

_SECOND_TARGET = 3
"""Seed of its platform."""

Run = Callable[[SnpArena], Outcome]


def for_good(run: Run) -> Run:
    """An attack that ends in FINISH, after which a source's helper does nothing more: in an arena of its own."""
    return lambda arena: run(arena.fresh())


def keep_running(arena: SnpArena) -> Outcome:
    """Move a guest whole; then have both helpers start it, and both hosts run it."""
    source, target = _moved(arena)
    target.machine.start_guest()
    if not _runs(target):
        raise AssertionError("the guest does not run at the target")
    try:
        source.machine.start_guest()
    except HelperRefused as error:
        told = error.status.name
    else:
        told = Status.MH_DONE.name
    if _runs(source):
        return succeeds("one guest runs in two places")
    return refused(f"the source: {told}, and VMRUN does not take the guest's vCPU; at the target it runs")


def move_again(arena: SnpArena) -> Outcome:
    """Move a guest whole; then have the source start a session with a second target."""
    source, _ = _moved(arena)
    second = arena.empty(_SECOND_TARGET, arena.secret)
    greet(source.ring)
    begin(source.ring, Role.MH_ROLE_SOURCE, greet(second.ring))
    return succeeds("the source seals the guest for a second target")


def _moved(arena: SnpArena) -> tuple[SnpSide, SnpSide]:
    """Both sides after a migration of a guest that has run at the source."""
    source, target = arena.source, arena.target
    source.machine.start_guest()
    if source.machine.run_guest(1).reason is Reason.FAIL_ENTRY:
        raise AssertionError("the guest does not run at the source")
    move(source.machine, target.machine, arena.owned)
    return source, target


def _runs(side: SnpSide) -> bool:
    return side.machine.run_guest(1).reason is not Reason.FAIL_ENTRY


def roll_back(arena: SnpArena) -> Outcome:
    """Have the target's helper start the guest before all has come: then an old page could follow."""
    target = _half(arena)
    target.machine.start_guest()
    return succeeds("the guest runs at the target before all has come")


def never_resume(arena: SnpArena) -> Outcome:
    """Run the guest's vCPU at the target without asking the helper."""
    target = _half(arena)
    target.machine.vcpu.replace_vmsa(arena.vmsa_gpa)
    target.machine.vcpu.init()
    if _runs(target):
        return succeeds("the guest runs at the target before all has come")
    return refused("VMRUN: VMEXIT_INVALID, for only the helper makes a page a VMSA")


def _half(arena: SnpArena) -> SnpSide:
    """A target that has two pages and the VMSA, after an epoch."""
    source, target = arena.connect()
    for address in (arena.address(0), arena.address(1)):
        if target.put(address, source.export(address)) != abi.mh_status.MH_DONE:
            raise AssertionError("the target refuses a faithful packet")
    end_epoch(source.ring, target.ring)
    return target
