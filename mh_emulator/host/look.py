"""What a curious host looks for in all pages of a guest, and what it tries with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.guest import Guest

T = TypeVar("T")

_PORTION = 256
"""Pages that are looked at in one go, so that the memory that it takes stays the same for any guest."""


def portions(pages: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield `pages`, or what there is for each of them, some at a time."""
    for start in range(0, len(pages), _PORTION):
        yield pages[start : start + _PORTION]


class Seen(Protocol):
    """A guest whose pages can be looked at, by `ram_addr` or by GPA."""

    def read_pages(self, pages: Sequence[int]) -> bytes:
        """What the guest sees in these pages, one after the other."""

    def peek_pages(self, pages: Sequence[int]) -> bytes:
        """What the host sees in them."""


def are_equal(source: Seen, target: Seen, pages: Sequence[int]) -> bool:
    """Whether both guests see the same in each of these pages."""
    return all(source.read_pages(some) == target.read_pages(some) for some in portions(pages))


def count_plain_pages(guest: Seen, pages: Sequence[int]) -> int:
    """How many of these pages hold, as the host sees them, what the guest sees in them."""
    return sum(_equal_pages(guest.peek_pages(some), guest.read_pages(some)) for some in portions(pages))


def count_naive_copies(source: Guest, target: Guest, pages: Sequence[int]) -> int:
    """Copy ciphertext as a host can, past all caches; return how many pages the target's guest sees as they were."""
    survivors = 0
    for some in portions(pages):
        for guest in (source, target):
            for page in some:
                guest.platform.dram.flush(guest.memory.spa(page), PAGE_BYTES)
        stored = source.peek_pages(some)
        for n, page in enumerate(some):
            target.memory.write_raw(page, stored[n * PAGE_BYTES : (n + 1) * PAGE_BYTES])
        survivors += _equal_pages(target.read_pages(some), source.read_pages(some))
    return survivors


def _equal_pages(some: bytes, others: bytes) -> int:
    """How many pages are the same in both."""
    starts = range(0, len(some), PAGE_BYTES)
    return sum(some[start : start + PAGE_BYTES] == others[start : start + PAGE_BYTES] for start in starts)
