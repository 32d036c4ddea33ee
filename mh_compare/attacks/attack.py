"""What an attack is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mh_builder.schemes.space import MIRROR_STARTS, Start
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import EXPECTED, Outcome, by_exception


@dataclass(frozen=True, slots=True)
class Attack:
    """Something that a hostile guest or host does."""

    name: str
    """What users type."""
    title: str
    """One line: who does what."""
    run: Callable[[MirrorArena], Outcome]
    """Does it, in an arena of its own, and says what it saw."""
    why: str = ""
    """Where it succeeds: why nothing below SNP prevents it, or what does."""
    is_gentle: bool = False
    """Leaves nothing behind but sessions, so that the arena may serve the next one."""
    starts: tuple[Start, ...] = MIRROR_STARTS
    """Where it makes sense: in plain SEV, under SEV-ES."""
    part: str | None = None
    """The processor on which it is tried, where it is about that one."""

    def outcome(self, arena: MirrorArena) -> Outcome:
        """Carry it out."""
        try:
            return self.run(arena)
        except EXPECTED as error:
            return by_exception(error)
