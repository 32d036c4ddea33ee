"""Which pages were moved, in this epoch and before, and which the guest shares with the host."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from mh_abi import abi

Status = abi.mh_status

WORD = 64
"""Pages of one word of a map."""


class Maps:
    """The three maps of all vCPUs; a page is a number."""

    def __init__(self) -> None:
        self.shared: set[int] = set()
        """No session and no start sets it back."""
        self._moved: set[int] = set()
        self._earlier: set[int] = set()

    def claim(self, pages: range, *, earlier: bool) -> abi.mh_status:
        """Take `pages` for this epoch, all or none; with `earlier` those of earlier epochs count as moved too.

        The first word of the maps that has a page that must not be moved decides; in it MH_SHARED comes before
        MH_REPEATED.
        """
        moved = self._moved | self._earlier if earlier else self._moved
        for word in words(pages):
            if not self.shared.isdisjoint(word):
                return Status.MH_SHARED
            if not moved.isdisjoint(word):
                return Status.MH_REPEATED
        self._moved.update(pages)
        return Status.MH_DONE

    def give_back(self, pages: range) -> None:
        """Undo a claim: the pages were not moved."""
        self._moved.difference_update(pages)

    def turn(self) -> None:
        """A new epoch begins."""
        self._earlier |= self._moved
        self._moved.clear()

    def reset(self) -> None:
        """A new session begins: nothing has moved."""
        self._earlier.clear()
        self._moved.clear()


def words(pages: range) -> Iterator[list[int]]:
    """The pages by the words of the maps that have their bits."""
    for _, word in groupby(pages, lambda page: page // WORD):
        yield list(word)
