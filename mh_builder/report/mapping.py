"""What a mapping is: virtual addresses that page tables send, page by page, to guest-physical ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mh_builder.paging import (
    ACCESSED,
    AVAILABLE,
    CACHE_DISABLE,
    DIRTY,
    GLOBAL,
    KEY_MASK,
    KEY_SHIFT,
    LARGE_PAT,
    PAGE_BYTES,
    SMALL_PAT,
    WRITE_THROUGH,
)

ACTED_ON = WRITE_THROUGH | CACHE_DISABLE | GLOBAL | KEY_MASK << KEY_SHIFT
"""Bits of a leaf that a CPU acts on besides rights and address; PAT, whose place depends on the size, is always one."""
MARKS = ACCESSED | DIRTY | AVAILABLE
"""Bits of a leaf in which CPU and software leave marks."""


class Mapping(NamedTuple):
    """`size` bytes from virtual `va`, in leaves of `page_bytes` with the same bits.

    Rights are those that all levels together allow, as the CPU combines them; EFER.NXE, CR0.WP, SMEP and SMAP are
    not looked at.
    """

    va: int
    gpa: int
    """Where `va` ends, C-bit removed."""
    size: int
    page_bytes: int
    bits: int
    """The leaf entries without address and C-bit; of joined mappings only those that count."""
    writable: bool
    user: bool
    executable: bool
    private: bool
    """The C-bit; False in a space without one."""
    period: int = 0
    """After so many bytes the physical side starts again; 0: never."""

    @property
    def end(self) -> int:
        """First virtual address behind."""
        return self.va + self.size

    @property
    def reach(self) -> int:
        """Bytes of guest-physical memory that can be reached."""
        return self.period or self.size

    @property
    def gpa_end(self) -> int:
        """First GPA behind what can be reached."""
        return self.gpa + self.reach

    @property
    def rights(self) -> str:
        """As `ls` would write it: r-x, rw-, r--."""
        return f"r{'w' if self.writable else '-'}{'x' if self.executable else '-'}"

    @property
    def pat_index(self) -> int:
        """Which of the eight entries of MSR PAT gives the memory type (APM volume 2, 7.8.2)."""
        pat = bool(self.bits & _pat_bit(self.page_bytes))
        return pat << 2 | bool(self.bits & CACHE_DISABLE) << 1 | bool(self.bits & WRITE_THROUGH)

    @property
    def is_global(self) -> bool:
        """Whether translations outlive a change of CR3 (CR4.PGE)."""
        return bool(self.bits & GLOBAL)

    @property
    def key(self) -> int:
        """Protection key of a user page (CR4.PKE)."""
        return self.bits >> KEY_SHIFT & KEY_MASK

    @property
    def is_accessed(self) -> bool:
        """Whether a CPU has set A, or software: of joined mappings only where `MARKS` count."""
        return bool(self.bits & ACCESSED)

    @property
    def is_dirty(self) -> bool:
        """Whether a CPU has set D, or software: of joined mappings only where `MARKS` count."""
        return bool(self.bits & DIRTY)

    @property
    def available(self) -> tuple[int, ...]:
        """The bits left to software that are set, by number."""
        return tuple(bit for bit in range(64) if self.bits & AVAILABLE & 1 << bit)

    @property
    def view(self) -> str:
        """What the CPU sees there: decrypted or raw memory."""
        return "private" if self.private else "shared"

    def parts(self, start: int, end: int) -> Iterator[Mapping]:
        """The mapping from virtual `start` to `end`: one part, or of a repeating one whole periods and the rests."""
        if not self.period:
            yield self._replace(va=start, size=end - start, gpa=self.gpa + start - self.va)
            return
        while start < end:
            moved = (start - self.va) % self.period
            periods = (end - start) // self.period
            size = periods * self.period if periods and not moved else min(end - start, self.period - moved)
            period = self.period if size > self.period else 0
            yield self._replace(va=start, size=size, gpa=self.gpa + moved, period=period)
            start += size

    def pages(self) -> Iterator[tuple[int, int]]:
        """(virtual, guest-physical) address of each page."""
        for offset in range(0, self.size, self.page_bytes):
            yield self.va + offset, self.gpa + (offset % self.period if self.period else offset)

    def addresses_of(self, gpa: int) -> range:
        """Every virtual address of the mapping that reaches the byte at `gpa`."""
        if not self.gpa <= gpa < self.gpa_end:
            return range(0)
        return range(self.va + gpa - self.gpa, self.end, self.reach)


def joined(mappings: Iterable[Mapping], counted: int = ACTED_ON) -> list[Mapping]:
    """The mappings, in their order, with neighbours joined of the same rights, memory type, and `counted` bits."""
    found: list[Mapping] = []
    for item in mappings:
        acted = item._replace(bits=item.bits & (counted | _pat_bit(item.page_bytes)))
        if not found or not append(found, acted):
            found.append(acted)
    return found


def _pat_bit(page_bytes: int) -> int:
    return SMALL_PAT if page_bytes == PAGE_BYTES else LARGE_PAT


def append(mappings: list[Mapping], item: Mapping) -> bool:
    """Join `item` to the last of `mappings` where that is one mapping; tell whether it was."""
    last = mappings[-1]
    if last.va + last.size != item.va or last[3:9] != item[3:9]:
        return False
    if last.period == item.period == 0 and last.gpa + last.size == item.gpa:
        period = 0
    elif last.gpa == item.gpa and last.reach == item.reach and last.size % last.reach == 0:
        period = item.reach
    else:
        return False
    mappings[-1] = last._replace(size=last.size + item.size, period=period)
    return True
