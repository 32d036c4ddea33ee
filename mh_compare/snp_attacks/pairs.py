"""The host pairs an SNP guest's helper with others."""

from __future__ import annotations

from dataclasses import replace

from mh_abi import abi
from mh_builder.schemes.space import Start
from mh_compare.arena import SECRET, TARGET, Role
from mh_compare.attacks import guest
from mh_compare.attacks.peers import OTHER_GUEST, TENANT
from mh_compare.candidate import candidate
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, succeeds
from mh_compare.snp_arena import SnpArena
from mh_compare.vmpl1 import Vmpl1
from mh_emulator.host.session import begin, greet
from mh_emulator.secret import Secret


def mix_schemes(arena: SnpArena) -> Outcome:
    """Give the secret of an owner who takes plain SEV to a mirror's helper, whose addresses mean something else."""
    return _pair_with(arena, "alias-window", SECRET, SECRET)


def downgrade(arena: SnpArena) -> Outcome:
    """Give the owner's secret to a helper in a mirror of an SEV-ES guest, whose memory the host may write."""
    weaker = replace(SECRET, protection=abi.mh_protection.MH_PROTECTION_SEV_ES.value)
    return _pair_with(arena, "alias-gpa", arena.secret, weaker)


def _pair_with(arena: SnpArena, scheme: str, own: Secret, others: Secret) -> Outcome:
    source = arena.start_source(secret=own)
    mirror = MirrorArena(candidate(scheme, arena.part.name, Start.ES)).empty(TARGET, others)
    greet(source.ring)
    begin(source.ring, Role.MH_ROLE_SOURCE, greet(mirror.ring))
    return succeeds("the source seals for a helper in a mirror")


def tenant_kernel(arena: SnpArena) -> Outcome:
    """Have the kernel of another guest, to which its owner gave the same key, read that key."""
    other = arena.start_source(TENANT, replace(arena.secret, guest=OTHER_GUEST))
    return guest.key_in(guest.steal_key(arena, Vmpl1(arena, other)))
