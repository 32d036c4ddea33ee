"""The host against memory of SNP guests: what it shows as code, and parts that have no SNP."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_compare.arena import SOURCE
from mh_compare.attacks import oracles
from mh_compare.attacks.mapping import stolen
from mh_compare.outcome import Outcome, absent
from mh_compare.snp_arena import SnpArena


def choose(arena: SnpArena) -> Outcome:
    """Forge packets that make the helper write what the host likes, and show the last of that as the helper's code."""
    arena = arena.fresh(oracles.KNOWN)
    target = arena.target
    for forge in oracles.FORGES:
        oracles.plant(arena, target, forge)
    written = arena.offset("vcpu_scratch") + PAGE_BYTES
    code, shown = (target.base + offset & -PAGE_BYTES for offset in (oracles.idle(arena), written))
    target.machine.exchange(code, shown)
    target.run_on()
    return stolen(target)


def no_snp(arena: SnpArena) -> Outcome:
    """Have a machine of a part that cannot do it."""
    try:
        arena.server(SOURCE)
    except ValueError as error:
        return absent(str(error))
    raise AssertionError(f"{arena.part.name} has SEV-SNP")
