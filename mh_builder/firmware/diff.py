"""What differs between the facts of two firmware images."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from mh_builder.firmware.facts import Fact, Key, Part, Value

_RANKS = {part: rank for rank, part in enumerate(Part)} | {Part.FILE: list(Part).index(Part.VOLUME)}
"""In which order parts are told, volumes with their files."""


class Kind(Enum):
    """How a fact differs."""

    ADDED = "added"
    REMOVED = "removed"
    MOVED = "moved"
    """In another volume, or in another order among what both images have in the same place."""
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; `before` is None of what was added, `after` of what was removed."""

    kinds: tuple[Kind, ...]
    before: Fact | None
    after: Fact | None

    @property
    def fact(self) -> Fact:
        """What differs, as it is last."""
        found = self.after or self.before
        if found is None:
            raise AssertionError("a change is one of something")
        return found

    @property
    def fields(self) -> dict[str, tuple[Value | None, Value | None]]:
        """The fields that differ: what they were, what they are."""
        before = {} if self.before is None else self.before.fields
        after = {} if self.after is None else self.after.fields
        names = [*after, *(name for name in before if name not in after)]
        return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def diff(before: Sequence[Fact], after: Sequence[Fact]) -> list[Change]:
    """Every difference, by part, then in the order of the places, those of `after` first."""
    old, new = ({fact.key: fact for fact in facts} for facts in (before, after))
    came = _from_elsewhere(old, new)
    displaced = _displaced([key for key in new if key in old], list(old))
    changes = []
    for key, fact in new.items():
        earlier = old.get(key) or came.get(key)
        kinds = _kinds(earlier, fact)
        if key in displaced or key in came:
            kinds = (Kind.MOVED, *kinds)
        if kinds:
            changes.append(Change(kinds, earlier, fact))
    found = new.keys() | {fact.key for fact in came.values()}
    changes += [Change((Kind.REMOVED,), fact, None) for key, fact in old.items() if key not in found]
    order = {where: number for number, where in enumerate(dict.fromkeys(fact.where for fact in (*after, *before)))}
    return sorted(changes, key=lambda change: (_RANKS[change.fact.part], order[change.fact.where]))


def other_bytes(before: bytes, after: bytes) -> list[Change]:
    """The one change of images whose facts are all the same; none where their bytes are, too."""
    if before == after:
        return []
    first = next((at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    title = f"the same contents in other bytes, from {min(len(before), len(after)) if first is None else first:#x} on"
    facts = (Fact(Part.IMAGE, "image", title, {"sha256": sha256(data).hexdigest()}) for data in (before, after))
    return [Change((Kind.CHANGED,), *facts)]


def _kinds(before: Fact | None, after: Fact) -> tuple[Kind, ...]:
    if before is None:
        return (Kind.ADDED,)
    return () if before.fields == after.fields else (Kind.CHANGED,)


def _from_elsewhere(old: Mapping[Key, Fact], new: Mapping[Key, Fact]) -> dict[Key, Fact]:
    """Files that have come to another volume: what they were in the one that they are gone from."""
    gone: defaultdict[str, deque[Fact]] = defaultdict(deque)
    for key, fact in old.items():
        if fact.part is Part.FILE and key not in new:
            gone[fact.title].append(fact)
    came = (key for key, fact in new.items() if fact.part is Part.FILE and key not in old)
    return {key: gone[new[key].title].popleft() for key in came if gone[new[key].title]}


def _displaced(keys: Iterable[Key], order: Iterable[Key]) -> set[Key]:
    """The fewest of `keys` without which the others of each place are in the `order` that they were in."""
    position = {key: number for number, key in enumerate(order)}
    places: defaultdict[tuple[Part, str], list[Key]] = defaultdict(list)
    for key in keys:
        places[key[:2]].append(key)
    return {key for place in places.values() for key in _without_longest_run(place, position)}


def _without_longest_run(keys: Sequence[Key], position: Mapping[Key, int]) -> set[Key]:
    """`keys` but for the longest increasing subsequence (by patience sorting)."""
    ends: list[int] = []
    last: list[Key] = []
    below: dict[Key, Key | None] = {}
    for key in keys:
        place = bisect_left(ends, position[key])
        below[key] = last[place - 1] if place else None
        ends[place : place + 1], last[place : place + 1] = [position[key]], [key]
    left = set(keys)
    key_ = last[-1] if last else None
    while key_ is not None:
        left.remove(key_)
        key_ = below[key_]
    return left
