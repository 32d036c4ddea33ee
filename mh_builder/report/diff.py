"""The difference of two layouts: what appeared, vanished, moved, or changed in rights, view, page size, bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

from mh_builder.report.layout import RAM, START, Layout, Plan, Region
from mh_builder.report.mapping import Mapping


class Kind(Enum):
    """What is different."""

    APPEARED = "appeared"
    VANISHED = "vanished"
    MOVED = "moved"
    """Another virtual address, GPA, or memory behind it."""
    RIGHTS = "rights"
    VIEW = "view"
    PAGES = "page size"
    TYPE = "memory type"
    GLOBAL = "global"
    KEY = "protection key"
    ACCESSED = "accessed"
    DIRTY = "dirty"
    AVAILABLE = "available bits"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; `before` is None where something appeared, `after` where it vanished."""

    kinds: tuple[Kind, ...]
    before: Region | None
    after: Region | None

    @property
    def purpose(self) -> str:
        """What it is for; empty where nothing is known of that."""
        region = self.before or self.after
        return "" if region is None else region.purpose


class _Slice:
    """A region that starts `offset` bytes behind the place that both layouts have of its purpose."""

    def __init__(self, region: Region, offset: int) -> None:
        self.region, self.offset = region, offset

    @property
    def end(self) -> int:
        return self.offset + self.region.mapping.size

    def cut(self, start: int, end: int) -> Region:
        """The region from offset `start` to `end`."""
        mapping, backing = self.region.mapping, self.region.backing
        parts = list(mapping.parts(mapping.va + start - self.offset, mapping.va + end - self.offset))
        # Parts of a mapping that repeats go on repeating.
        part = parts[0] if len(parts) == 1 else parts[0]._replace(size=end - start, period=mapping.period)
        if backing is not None and not mapping.period:
            backing = backing.part(part.gpa, part.gpa_end)
        return Region(self.region.purpose, part, backing)


def diff(before: Layout, after: Layout) -> list[Change]:
    """Every difference, by purpose where both layouts are of images of ours, else by virtual address."""
    return [change for change in pairs(before, after) if change.kinds]


def pairs(before: Layout, after: Layout) -> list[Change]:
    """Everything of both side by side, in the order of `diff`; what is the same is a change of no kind.

    Accessed, dirty and available bits are differences where both layouts count them.
    """
    if before.counted != after.counted:
        counted = before.counted & after.counted
        before, after = replace(before, counted=counted), replace(after, counted=counted)
    named = before.plan is not None and after.plan is not None
    old, new = (_by_purpose(layout, named=named) for layout in (before, after))
    changes: list[Change] = []
    for purpose in dict.fromkeys([*old, *new]):
        for change in _compare(old.get(purpose, []), new.get(purpose, [])):
            if not changes or not _joined(changes, change):
                changes.append(change)
    return changes


def _by_purpose(layout: Layout, *, named: bool) -> dict[str, list[_Slice]]:
    found: dict[str, list[_Slice]] = {}
    for region in layout.regions:
        purpose, place = (region.purpose, _place(region.purpose, layout.plan)) if named else ("", 0)
        found.setdefault(purpose, []).append(_Slice(region, region.mapping.va - place))
    return found


def _place(purpose: str, plan: Plan | None) -> int:
    """The virtual address from which offsets are counted."""
    if plan is None:
        return 0
    sections = {section.name: section.va for section in plan.sections}
    return (sections | {RAM: plan.window_va, START: plan.entry32 & -0x1000}).get(purpose, 0)


def _compare(old: list[_Slice], new: list[_Slice]) -> Iterator[Change]:
    """Sweep both, which are in the order of their offsets."""
    borders = sorted({border for part in (*old, *new) for border in (part.offset, part.end)})
    olds, news = iter([*old, None]), iter([*new, None])
    before, after = next(olds), next(news)
    for start, end in pairwise(borders):
        while before is not None and before.end <= start:
            before = next(olds)
        while after is not None and after.end <= start:
            after = next(news)
        left = before.cut(start, end) if before is not None and before.offset <= start else None
        right = after.cut(start, end) if after is not None and after.offset <= start else None
        kinds = tuple(_kinds(left, right))
        if left is not None or right is not None:
            yield Change(kinds, left, right)


def _kinds(left: Region | None, right: Region | None) -> Iterator[Kind]:
    if left is None or right is None:
        if right is not None:
            yield Kind.APPEARED
        if left is not None:
            yield Kind.VANISHED
        return
    if _place_of(left) != _place_of(right):
        yield Kind.MOVED
    for kind, value in _LOOKED_AT.items():
        if value(left.mapping) != value(right.mapping):
            yield kind


_LOOKED_AT: dict[Kind, Callable[[Mapping], object]] = {
    Kind.RIGHTS: lambda mapping: (mapping.rights, mapping.user),
    Kind.VIEW: lambda mapping: mapping.private,
    Kind.PAGES: lambda mapping: mapping.page_bytes,
    Kind.TYPE: lambda mapping: mapping.pat_index,
    Kind.GLOBAL: lambda mapping: mapping.is_global,
    Kind.KEY: lambda mapping: mapping.key,
    Kind.ACCESSED: lambda mapping: mapping.is_accessed,
    Kind.DIRTY: lambda mapping: mapping.is_dirty,
    Kind.AVAILABLE: lambda mapping: mapping.available,
}


def _place_of(region: Region) -> tuple[object, ...]:
    return region.mapping.va, region.mapping.gpa, region.mapping.period, _memory(region)


def _memory(region: Region) -> tuple[str, int] | None:
    return None if region.backing is None else region.backing.memory


def _joined(changes: list[Change], change: Change) -> bool:
    """Join `change` to the last of `changes` where it goes on with it; tell whether it did."""
    last = changes[-1]
    if last.kinds != change.kinds:
        return False
    both = [_continued(*pair) for pair in ((last.before, change.before), (last.after, change.after))]
    if not all(is_one for is_one, _ in both):
        return False
    changes[-1] = Change(last.kinds, both[0][1], both[1][1])
    return True


def _continued(first: Region | None, second: Region | None) -> tuple[bool, Region | None]:
    if first is None or second is None:
        return first is second, None
    left, right = first.mapping, second.mapping
    is_one = (
        first.purpose == second.purpose
        and left.end == right.va
        and left.gpa_end == right.gpa
        and not left.period
        and left[3:] == right[3:]
        and _goes_on(first, second)
    )
    if not is_one:
        return False, None
    backing = first.backing and first.backing._replace(size=left.size + right.size)
    return True, Region(first.purpose, left._replace(size=left.size + right.size), backing)


def _goes_on(first: Region, second: Region) -> bool:
    if first.backing is None or second.backing is None:
        return first.backing is second.backing
    whole = first.backing._replace(size=first.backing.size + second.backing.size)
    return whole.part(second.backing.gpa, second.backing.end) == second.backing
