"""The migration of a guest that is stopped while it boots or works."""

from __future__ import annotations

from dataclasses import dataclass

from mh_emulator.host import look, migration
from mh_emulator.host.machine import Machine


@dataclass
class Moved:
    """What came of it."""

    pages: int
    shared_pages: int
    source_plain_pages: int
    """Pages whose plaintext the host of the source could see."""
    naive_equal_pages: int
    """Pages that survive when the host copies ciphertext."""
    equal: bool = False
    """Whether the target's guest sees in every page what the source's saw."""

    @property
    def good(self) -> bool:
        """Whether everything that has to hold did."""
        return self.equal and not self.source_plain_pages and not self.naive_equal_pages


def move(source: Machine, target: Machine) -> Moved:
    """Move its memory: private pages by the helpers, shared ones by the host. Raises what a migration raises."""
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
    migration.move(source, target, pages)
    migration.copy_shared(source, target, shared)
    moved.equal = look.are_equal(source, target, pages)
    return moved
