"""The host against the launch: the owner believes a report, or gives no record."""

from __future__ import annotations

from dataclasses import replace

from mh_builder.helper import build_helper
from mh_builder.image.vmsa import hosted
from mh_builder.paging import MIB
from mh_compare.arena import SOURCE, TARGET
from mh_compare.candidate import OWNER
from mh_compare.outcome import Outcome, refused, succeeds
from mh_compare.snp_arena import Held, SnpArena
from mh_emulator.attest.chain import Chain
from mh_emulator.attest.owner import SnpOwner
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.host.attest import Messenger, fetch_records
from mh_emulator.host.snp_migration import trust
from mh_emulator.kvm import KvmError
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy

_ELSEWHERE = 128 * MIB


def change_helper(arena: SnpArena) -> Outcome:
    """Load the helper with one bit of its code changed."""
    code = bytearray(arena.helper.data)
    code[arena.offset("check_address")] ^= 1
    changed = replace(arena.helper, data=bytes(code))
    _ask_owner(arena, Held(arena.server(SOURCE), arena.placement, changed, arena.guest))
    return succeeds("the owner gives the record to a changed helper")


def change_policy(arena: SnpArena) -> Outcome:
    """Launch with a policy that allows debugging."""
    policy = DEFAULT_POLICY | SnpPolicy.DEBUG
    _ask_owner(arena, Held(arena.server(SOURCE), arena.placement, arena.helper, arena.guest, policy))
    return succeeds("the owner gives the record to a guest with the host's policy")


def load_elsewhere(arena: SnpArena) -> Outcome:
    """Load a helper with the same code, built for another place in RAM."""
    topology = replace(arena.placement.topology, below=2 * _ELSEWHERE)
    moved = build_helper(arena.candidate.name, replace(arena.candidate.image.space.options, home=_ELSEWHERE))
    placement = replace(arena.placement, topology=topology)
    _ask_owner(arena, Held(arena.server(SOURCE), placement, hosted(moved, arena.part.c_bit), arena.guest))
    return succeeds("the owner gives the record to a helper at another address")


def relaunch(arena: SnpArena) -> Outcome:
    """Have the guest launched twice while RDRAND repeats, and ask for one record both times."""
    sources, targets = zip(*(_without_chance(arena) for _ in range(2)), strict=True)
    owner = _owner(arena, targets[0])
    for source, target in zip(sources, targets, strict=True):
        _fetch(arena, owner, source, target)
    return succeeds("the owner gives one record to two launches, which differ in nothing")


def _without_chance(arena: SnpArena) -> tuple[Held, Held]:
    platforms = [arena.server(seed) for seed in (SOURCE, TARGET)]
    for platform in platforms:
        platform.generator.fault = FAULTS["repeats"]
    source, target = (
        Held(platform, arena.placement, arena.helper, guest)
        for platform, guest in zip(platforms, (arena.guest, ()), strict=True)
    )
    return source, target


def _ask_owner(arena: SnpArena, source: Held) -> None:
    """Ask an owner who goes by what he has built himself. Raises `NotBelieved`."""
    target = arena.launched(TARGET, ())
    _fetch(arena, _owner(arena, target), source, target)


def _owner(arena: SnpArena, target: Held) -> SnpOwner:
    """Who expects the arena's helper on both sides, as the faithful target has it."""
    root = Chain(target.platform.psp.chain).root
    return SnpOwner(trust(arena.part, root, target, target, arena.guest), arena.secret.table(), OWNER)


def _fetch(arena: SnpArena, owner: SnpOwner, *sides: Held) -> None:
    fetch_records(owner, *(Messenger(side.rings[0], side.platform.psp.chain, arena.part.name) for side in sides))


def repeat_secret(arena: SnpArena) -> Outcome:
    """Have the owner's secret put into the guest's first page as well."""
    try:
        arena.source.machine.vm.refuse("KVM_SEV_LAUNCH_SECRET")
    except KvmError as error:
        return refused(f"{error}; the record is sealed for the helper's share")
    raise AssertionError("KVM launches a secret into an SNP guest")
