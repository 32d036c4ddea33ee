"""What a migration of an SNP guest leaves behind that fails."""

from __future__ import annotations

from mh_compare.columns.column import Value
from mh_compare.columns.ending import after_failure, second_try
from mh_compare.guest_os import read_word
from mh_compare.snp_arena import SnpArena
from mh_compare.subject import SnpSubject
from mh_compare.vmpl1 import Vmpl1
from mh_emulator.host.session import abort
from mh_emulator.host.snp_migration import move


def failed(subject: SnpSubject) -> Value:
    """Break a packet in the middle of a migration; look at both guests; then try again."""
    arena = subject.arena()
    guest = Vmpl1(arena, arena.source)
    return after_failure(arena, lambda: guest.run(read_word(0))[:8], lambda: _again(arena))


def _again(arena: SnpArena) -> str:
    """Move everything in a new session, the VMSA too."""
    for side in (arena.source, arena.target):
        abort(side.ring)
    total, _ = move(arena.source.machine, arena.target.machine, arena.owned)
    return second_try(total, len(arena.owned) + 1)
