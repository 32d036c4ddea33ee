"""What the helper needs before it can move a page: read off while an SNP guest is launched."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import human
from mh_compare.arena import SOURCE
from mh_compare.columns.column import Value, not_applicable
from mh_compare.columns.launch import of_policies
from mh_compare.snp_arena import Held
from mh_compare.subject import SnpSubject
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy

_TRIED = (DEFAULT_POLICY | SnpPolicy.DEBUG, DEFAULT_POLICY, DEFAULT_POLICY | SnpPolicy.SINGLE_SOCKET)
"""From the weakest to the strictest; without SMT a platform that has it launches no guest at all."""


def reserved(subject: SnpSubject) -> Value:
    """RAM that a helper has which is alone in its VM, and where."""
    machine = subject.alone.machine
    private = {
        gpa
        for block in machine.placement.topology.blocks
        for gpa in range(block.gpa, block.gpa + block.size, PAGE_BYTES)
        if machine.vm.is_private(gpa)
    }
    taken = private | {machine.placement.topology.gpa(page) for page in machine.memory.populated()}
    size = len(taken) * PAGE_BYTES
    return Value(human(size), size, f"in one piece, from GPA {min(taken):#x}")


def no_mirror(_subject: SnpSubject) -> Value:
    """What a mirror would take."""
    return not_applicable("there is no mirror: the helper is launched with its guest, in one VM")


def policies(subject: SnpSubject) -> Value:
    """Which policies let the helper be launched, started, and export a page."""
    return of_policies({_names(policy): _exports(subject, policy) for policy in _TRIED})


def _names(policy: int) -> str:
    return "|".join(flag.name for flag in SnpPolicy if policy & flag and flag.name)


def _exports(subject: SnpSubject, policy: int) -> bool:
    arena = subject.arena()
    source = arena.begun(Held(arena.server(SOURCE), arena.placement, arena.helper, arena.guest, policy))
    arena.alone(source)
    return bool(source.export(source.request_address(arena.ram[0])).data)
