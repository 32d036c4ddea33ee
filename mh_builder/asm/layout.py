"""Places fragments: branches grow until all reach, everything else follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mh_builder.asm.diagnostics import Reporter, StatementError
from mh_builder.asm.expression import Address
from mh_builder.asm.fragments import Align, Branch, Bytes, Fill, Fragment, SectionBuilder
from mh_builder.asm.objectfile import EMPTY_SECTIONS
from mh_builder.asm.symbols import Resolver, SymbolTable

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ROUNDS = 200
MAX_DATA_BYTES = 1 << 26
MAX_BSS_BYTES = 1 << 32

Addresses = dict[str, list[int]]
"""Offsets of every section's fragments, and of its end, in bytes."""


class SectionLayout:
    """Where every fragment is and how long it became."""

    def __init__(self, sections: Iterable[SectionBuilder], table: SymbolTable, reporter: Reporter) -> None:
        """Lay the sections out; what has no size is reported and counts as empty."""
        self._sections = tuple(sections)
        self._table = table
        self._reporter = reporter
        self._counts: dict[int, int] = {}
        self.addresses: Addresses = {section.name: [] for section in self._sections}
        self._converge()

    def count(self, fragment: Fill) -> int:
        """Give how often a fill repeats its pattern."""
        return self._counts.get(id(fragment), 0)

    def resolver(self) -> Resolver:
        """Resolve names against this layout."""
        return Resolver(self._table, self.addresses)

    def _converge(self) -> None:
        self._place()
        for _ in range(MAX_ROUNDS):
            resolver = self.resolver()
            changed = [self._adjust(section, index, resolver) for section, index in self._adjustable()]
            if not any(changed):
                break
            self._place()
        else:
            self._report_restless()
        self._check_fills()

    def _adjustable(self) -> list[tuple[SectionBuilder, int]]:
        return [
            (section, index)
            for section in self._sections
            for index, fragment in enumerate(section.fragments)
            if isinstance(fragment, Fill) or (isinstance(fragment, Branch) and not fragment.is_near)
        ]

    def _place(self) -> None:
        for section in self._sections:
            offsets, offset = [], 0
            for fragment in section.fragments:
                offsets.append(offset)
                offset += self._size(fragment, offset)
            self.addresses[section.name] = [*offsets, offset]

    def _size(self, fragment: Fragment, offset: int) -> int:
        match fragment:
            case Bytes():
                return len(fragment.data)
            case Branch():
                return len(fragment.near) + fragment.near_width if fragment.is_near else len(fragment.short) + 1
            case Fill():
                return self.count(fragment) * len(fragment.pattern)
            case Align():
                return -offset % fragment.boundary

    def _adjust(self, section: SectionBuilder, index: int, resolver: Resolver) -> bool:
        """Bring one fragment up to date; tell whether it changed."""
        fragment = section.fragments[index]
        if isinstance(fragment, Branch):
            end = self.addresses[section.name][index + 1]
            # A branch that is out of reach now must stay near: one that shrank again might never settle.
            fragment.is_near = bool(fragment.near) and not _reaches(fragment, section.name, end, resolver)
            return fragment.is_near
        if isinstance(fragment, Fill):
            before = self.count(fragment)
            self._counts[id(fragment)] = self._wanted(fragment, section, resolver)
            return self.count(fragment) != before
        return False

    def _wanted(self, fragment: Fill, section: SectionBuilder, resolver: Resolver) -> int:
        try:
            count = resolver.number(fragment.count, fragment.column)
        except StatementError:
            return 0
        limit = MAX_BSS_BYTES if section.name in EMPTY_SECTIONS else MAX_DATA_BYTES
        return count if 0 <= count * len(fragment.pattern) <= limit else 0

    def _report_restless(self) -> None:
        for section, index in self._adjustable():
            fragment = section.fragments[index]
            if isinstance(fragment, Fill):
                self._reporter.error(fragment.line, fragment.column, "this length depends on itself")
                return

    def _check_fills(self) -> None:
        resolver = self.resolver()
        for section in self._sections:
            limit = MAX_BSS_BYTES if section.name in EMPTY_SECTIONS else MAX_DATA_BYTES
            for fragment in section.fragments:
                if isinstance(fragment, Fill):
                    self._check_fill(fragment, limit, resolver)
            size = self.addresses[section.name][-1]
            if size > limit:
                self._reporter.error(section.fragments[-1].line, 1, f"section {section.name} exceeds {limit} bytes")

    def _check_fill(self, fragment: Fill, limit: int, resolver: Resolver) -> None:
        try:
            count = resolver.number(fragment.count, fragment.column)
        except StatementError as error:
            self._reporter.error(fragment.line, error.column, error.message)
            return
        if count < 0:
            self._reporter.error(fragment.line, fragment.column, f"negative length {count}")
        elif count * len(fragment.pattern) > limit:
            self._reporter.error(fragment.line, fragment.column, f"more than {limit} bytes")


def _reaches(branch: Branch, section: str, end: int, resolver: Resolver) -> bool:
    try:
        target = resolver.evaluate(branch.target)
    except StatementError:
        return True
    if not isinstance(target, Address) or target.section != section:
        return False
    return -128 <= target.base + target.addend - end <= 127
