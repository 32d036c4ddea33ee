"""Page state changes that an SNP guest asks for: one in the MSR, or a list in the buffer that it shares.

Source: Linux, arch/x86/kvm/svm/sev.c (snp_begin_psc_msr, snp_begin_psc), arch/x86/include/asm/sev-common.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from mh_builder.paging import PAGE_SHIFT
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.hypercalls import MAP_GPA_RANGE, MAP_GPA_RANGE_ENCRYPTED

PSC_RESPONSE, PSC_RESPONSE_ERROR = 0x015, 1 << 63 | 0x015
"""What the MSR holds afterwards."""
ERROR_GENERIC, ERROR_HEADER, ERROR_ENTRY = 0x100 << 32, 1 << 32 | 1, 1 << 32 | 2
"""SW_EXITINFO2 of a list."""
MOST_ENTRIES = 253
BUFFER_BYTES = 8 + 8 * MOST_ENTRIES

_HEADER = struct.Struct("<HH4x")
_ENTRY_BYTES = 8
_PAGE_SIZE_2M = 1 << 0
"""KVM_MAP_GPA_RANGE_PAGE_SZ_2M."""
_GFN_MASK = (1 << 40) - 1
_LARGE_PAGES = 512


class Operation(IntEnum):
    """What a page is to become."""

    PRIVATE = 1
    SHARED = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list."""

    done: int
    """4 KiB pages of it that have been changed."""
    gfn: int
    operation: int
    large: bool

    @classmethod
    def parse(cls, value: int) -> Entry:
        """From its 64 bits; the upper ones are reserved."""
        return cls(value & 0xFFF, value >> 12 & _GFN_MASK, value >> 52 & 0xF, bool(value >> 56 & 1))

    @property
    def pages(self) -> int:
        """4 KiB pages."""
        return _LARGE_PAGES if self.large else 1


@dataclass(frozen=True, slots=True)
class Change:
    """Neighbours of one list that the host is asked for at once: `count` entries from number `first` on."""

    first: int
    count: int
    exit: Exit


def exit_for(gfn: int, pages: int, operation: int, size: int = 0) -> Exit:
    """The exit to the host, which changes the attributes of these pages."""
    attributes = (MAP_GPA_RANGE_ENCRYPTED if operation == Operation.PRIVATE else 0) | size
    return Exit(Reason.HYPERCALL, number=MAP_GPA_RANGE, arguments=(gfn << PAGE_SHIFT, pages, attributes))


def msr_request(value: int) -> Exit | None:
    """The exit for a request in the MSR; None for an operation that is not known."""
    operation = value >> 52 & 0xF
    if operation not in tuple(Operation):
        return None
    return exit_for(value >> PAGE_SHIFT & _GFN_MASK, 1, operation)


class ChangeList:
    """The list in a guest's buffer, which the guest can change at any time: it is read anew for every step."""

    def __init__(self, read: Callable[[], bytes], write: Callable[[int, bytes], None]) -> None:
        self._read = read
        """All `BUFFER_BYTES`."""
        self._write = write
        """At an offset of it."""

    def next_change(self) -> Change | int:
        """What the host is asked next, or SW_EXITINFO2 of the answer."""
        while True:
            found = self._next_range()
            if isinstance(found, int) or found.exit.arguments:
                return found
            # Neither private nor shared (SMASH, UNSMASH): KVM counts it as done.
            self.complete(found)

    def complete(self, change: Change) -> None:
        """Mark what the host has done."""
        buffer = self._read()
        for number in range(change.first, change.first + change.count):
            value = self._value(buffer, number)
            pages = Entry.parse(value).pages
            self._write(_HEADER.size + _ENTRY_BYTES * number, struct.pack("<Q", value & ~0xFFF | pages))
        self._write_current(change.first + change.count)

    def _next_range(self) -> Change | int:
        buffer = self._read()
        current, last = _HEADER.unpack_from(buffer)
        if last >= MOST_ENTRIES:
            return ERROR_HEADER
        for number in range(current, last + 1):
            entry = Entry.parse(self._value(buffer, number))
            if entry.done > entry.pages or entry.gfn % entry.pages:
                return ERROR_ENTRY
            if entry.done < entry.pages:
                self._write_current(number)
                return self._change(buffer, number, last, entry)
        self._write_current(max(current, last + 1))
        return 0

    def _change(self, buffer: bytes, first: int, last: int, start: Entry) -> Change:
        """`start`, and the entries behind it that go on where it ends."""
        large = start.large and not start.done
        pages, count = start.pages - start.done, 1
        for number in range(first + 1, last + 1):
            entry = Entry.parse(self._value(buffer, number))
            follows = (entry.operation, entry.gfn) == (start.operation, start.gfn + pages)
            if not follows or entry.done or entry.large is not large:
                break
            pages, count = pages + entry.pages, count + 1
        if start.operation not in tuple(Operation):
            return Change(first, count, Exit(Reason.HYPERCALL))
        size = _PAGE_SIZE_2M if start.large else 0
        return Change(first, count, exit_for(start.gfn + start.done, pages, start.operation, size))

    def _value(self, buffer: bytes, number: int) -> int:
        return int.from_bytes(buffer[_HEADER.size + _ENTRY_BYTES * number :][:_ENTRY_BYTES], "little")

    def _write_current(self, number: int) -> None:
        self._write(0, struct.pack("<H", number))
