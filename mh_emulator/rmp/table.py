"""All entries of a machine's RMP, and the pages that each ASID owns.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_rmp.h (counters before the entries), sev_rmp.c (check_rmp_for_asid).
Where the table itself lies in memory is not modelled, so neither is protection of the table.
"""

from __future__ import annotations

from collections.abc import Callable

from mh_builder.paging import PAGE_BYTES, PAGE_SHIFT
from mh_emulator.rmp.entry import HYPERVISOR, SUBPAGE, PageSize, PageState, RmpEntry

_LARGE_BYTES = PageSize.LARGE.bytes

Watcher = Callable[[int, int], None]
"""(SPA, bytes) of what a changed entry speaks for, or spoke for."""


class Rmp:
    """Entries of `size` bytes of memory from system physical address `base`; both are multiples of 2 MiB."""

    def __init__(self, base: int, size: int) -> None:
        if size <= 0 or (base | size) % _LARGE_BYTES:
            raise ValueError(f"RMP of {size:#x} bytes at {base:#x} is not made of 2 MiB")
        self.base = base
        self.size = size
        self._entries: dict[int, RmpEntry] = {}
        self.watchers: list[Watcher] = []
        """Told of every change: CPUs have cached what they were told before."""

    def clear(self) -> None:
        """Give every page to the hypervisor, as SNP_INIT does."""
        self._entries.clear()
        self._tell(self.base, self.size)

    def covers(self, spa: int) -> bool:
        """Whether the page of `spa` has an entry."""
        return self.base <= spa < self.base + self.size

    def entry(self, spa: int) -> RmpEntry:
        """The entry of the page of `spa` as it stands in the table; that of the hypervisor beyond the table."""
        found = self._entries.get(spa >> PAGE_SHIFT)
        if found is None:
            return SUBPAGE if self._large_head(spa) is not None else HYPERVISOR
        return found

    def state(self, spa: int) -> PageState:
        """The state of the page of `spa`."""
        return self.entry(spa).state if self.covers(spa) else PageState.DEFAULT

    def covering(self, spa: int) -> tuple[int, RmpEntry]:
        """The entry that speaks for `spa`, and the address of the first page that it speaks for."""
        head = self._large_head(spa)
        if head is not None:
            return spa & -_LARGE_BYTES, head
        return spa & -PAGE_BYTES, self._entries.get(spa >> PAGE_SHIFT, HYPERVISOR)

    def replace(self, spa: int, entry: RmpEntry) -> None:
        """Write the entry of the page of `spa`, which is in the table."""
        if not self.covers(spa):
            raise ValueError(f"{spa:#x} is outside of the RMP of {self.base:#x}..{self.base + self.size:#x}")
        self._entries[spa >> PAGE_SHIFT] = entry
        self._tell(spa & -PAGE_BYTES, _LARGE_BYTES)

    def forget(self, spa: int) -> None:
        """Drop the entry of the page of `spa`: the page is the hypervisor's, or one behind an entry of 2 MiB."""
        self._entries.pop(spa >> PAGE_SHIFT, None)
        self._tell(spa & -PAGE_BYTES, _LARGE_BYTES)

    def pages_of(self, asid: int) -> int:
        """The counter of `asid`: 4 KiB pages that are assigned to it; nobody counts those of ASID 0."""
        if not asid:
            return 0
        owned = (entry for entry in self._entries.values() if entry.assigned and entry.asid == asid)
        return sum(entry.size.bytes // PAGE_BYTES for entry in owned)

    def _tell(self, spa: int, size: int) -> None:
        for watcher in self.watchers:
            watcher(spa, size)

    def _large_head(self, spa: int) -> RmpEntry | None:
        head = self._entries.get((spa & -_LARGE_BYTES) >> PAGE_SHIFT)
        return head if head is not None and head.size is PageSize.LARGE else None
