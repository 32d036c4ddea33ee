"""The migration of a guest that is stopped while it boots or works."""

from __future__ import annotations

from dataclasses import dataclass

from mh_emulator.host import look, migration
from mh_emulator.host.machine import Machine
from mh_emulator.host.post_copy import PostCopy


@dataclass
class Moved:
    """What came of it."""

    pages: int
    shared_pages: int
    source_plain_pages: int
    """Pages whose plaintext the host of the source could see."""
    naive_equal_pages: int
    """Pages that survive when the host copies ciphertext."""
    demanded_pages: int = 0
    """Private pages that came because the guest needed them, where it went on before they were there."""
    equal: bool = False
    """Whether the target's guest sees in every page what the source's saw."""

    @property
    def good(self) -> bool:
        """Whether everything that has to hold did."""
        return self.equal and not self.source_plain_pages and not self.naive_equal_pages


def move(source: Machine, target: Machine) -> Moved:
    """Move its memory: private pages by the helpers, shared ones by the host. Raises what a migration raises."""
    moved, pages, shared = _look(source, target)
    migration.move(source, target, pages)
    migration.copy_shared(source, target, shared)
    moved.equal = look.are_equal(source, target, pages)
    return moved


class Following:
    """A move in which the guest goes on at the target before its private pages are there, by `guest`."""

    def __init__(self, source: Machine, target: Machine) -> None:
        self.moved, pages, shared = _look(source, target)
        self.guest = PostCopy(source, target, pages)
        migration.copy_shared(source, target, shared)

    def finish(self) -> None:
        """Have the rest come. Raises what a migration raises."""
        self.guest.finish()
        self.moved.equal, self.moved.demanded_pages = self.guest.equal, self.guest.demanded


def _look(source: Machine, target: Machine) -> tuple[Moved, list[int], list[int]]:
    """What a curious host sees before, and which pages are private and shared; the target knows what the guest said."""
    # Where caches are not coherent, a page of zeros may not have got to DRAM, which is zeros too.
    source.platform.dram.flush_all()
    pages, shared = source.guest_pages(), source.shared_pages()
    moved = Moved(
        pages=len(pages),
        shared_pages=len(shared),
        source_plain_pages=look.count_plain_pages(source, pages),
        naive_equal_pages=look.count_naive_copies(source, target, pages),
    )
    target.regions, target.consent.shared = source.regions, source.consent.shared
    return moved, pages, shared
