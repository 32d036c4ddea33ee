"""What an attack is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mh_builder.schemes.space import Start
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import EXPECTED, Outcome, by_exception

AnyArena = TypeVar("AnyArena")


@dataclass(frozen=True, slots=True)
class Attack:
    """Something that a hostile guest or host does."""

    name: str
    """What users type."""
    title: str
    """One line: who does what."""
    run: Callable[[MirrorArena], Outcome]
    """Does it in a mirror, in an arena of its own, and says what it saw; `snp_attacks` has it without one."""
    why: str = ""
    """Where it succeeds: why nothing prevents it, or what does."""
    is_gentle: bool = False
    """Leaves nothing behind but sessions, so that the arena may serve the next one."""
    starts: tuple[Start, ...] = tuple(Start)
    """Where it makes sense."""
    part: str | None = None
    """The processor on which it is tried, where it is about that one."""

    def outcome(self, arena: MirrorArena) -> Outcome:
        """Carry it out."""
        return carried_out(self.run, arena)


def carried_out(run: Callable[[AnyArena], Outcome], arena: AnyArena) -> Outcome:
    """What an attack came to, also where something stopped it on its way."""
    try:
        return run(arena)
    except EXPECTED as error:
        return by_exception(error)
