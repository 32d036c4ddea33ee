"""What firmware knows of memory: which pages are used, and for what.

Source: UEFI 2.10, section 7.2 (memory allocation services).
"""

from __future__ import annotations

from enum import IntEnum
from itertools import groupby
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES


class MemoryType(IntEnum):
    """EFI_MEMORY_TYPE, as far as it is used here."""

    RESERVED = 0
    LOADER_CODE = 1
    LOADER_DATA = 2
    BOOT_SERVICES_CODE = 3
    BOOT_SERVICES_DATA = 4
    RUNTIME_SERVICES_CODE = 5
    RUNTIME_SERVICES_DATA = 6
    CONVENTIONAL = 7


class Descriptor(NamedTuple):
    """`pages` pages of one type from `start`."""

    start: int
    pages: int
    type: MemoryType


class MemoryMap:
    """The pages of RAM from `start` to `end`; all are free at first."""

    def __init__(self, start: int, end: int) -> None:
        self._first, self._last = start // PAGE_BYTES, end // PAGE_BYTES
        self._used: dict[int, MemoryType] = {}

    def take(self, kind: MemoryType, start: int, pages: int) -> bool:
        """Allocate these very pages, or nothing where one of them is not free."""
        wanted = range(start // PAGE_BYTES, start // PAGE_BYTES + pages)
        if start % PAGE_BYTES or not pages or wanted.start < self._first or wanted.stop > self._last:
            return False
        if any(page in self._used for page in wanted):
            return False
        self._used.update(dict.fromkeys(wanted, kind))
        return True

    def find(self, kind: MemoryType, pages: int) -> int | None:
        """Allocate the lowest `pages` pages that are free together; return where they are."""
        start = self._first
        while start + pages <= self._last:
            blocked = next((page for page in range(start, start + pages) if page in self._used), None)
            if blocked is None:
                return start * PAGE_BYTES if self.take(kind, start * PAGE_BYTES, pages) else None
            start = blocked + 1
        return None

    def free(self, start: int, pages: int) -> bool:
        """Give pages back, or nothing where one of them is free already."""
        given = range(start // PAGE_BYTES, start // PAGE_BYTES + pages)
        if start % PAGE_BYTES or not pages or any(page not in self._used for page in given):
            return False
        for page in given:
            del self._used[page]
        return True

    def used(self) -> list[Descriptor]:
        """Everything that is allocated, in runs of one type."""
        found = []
        for _, run in groupby(enumerate(sorted(self._used)), lambda item: (item[1] - item[0], self._used[item[1]])):
            pages = [page for _, page in run]
            found.append(Descriptor(pages[0] * PAGE_BYTES, len(pages), self._used[pages[0]]))
        return found
