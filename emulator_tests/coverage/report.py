"""What ran, by instruction of the source: of all blobs together, with the reasons that lines carry."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from emulator_tests.coverage.blobs import RECORDED, Blob, blob, source

_REASON = re.compile(r"#\s*(not here|one side): (\S.*)$")
"""`not here`: this line does not run in the machine; alone at the start of a line, none of the file does. `one side`:
the other side of this branch is never seen."""


@dataclass
class Seen:
    """Of one instruction of the source, whichever blob it is in."""

    ran: bool = False
    fell: bool = False
    taken: bool = False
    is_branch: bool = False

    @property
    def missing(self) -> str:
        """What of it has not run, in words."""
        if not self.ran:
            return "never runs"
        if self.is_branch and not self.taken:
            return "is never taken"
        if self.is_branch and not self.fell:
            return "always branches"
        return ""


@dataclass
class Traces:
    """What ran of each blob: bytes of code, and ends of blocks from which it went on or branched."""

    ran: dict[str, bytearray] = field(default_factory=dict)
    fell: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    taken: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def add(self, name: str, blocks: Iterable[tuple[int, int]], fell: Iterable[int], taken: Iterable[int]) -> None:
        """Add what another process saw."""
        ran = self.ran.setdefault(name, bytearray(len(blob(name).text)))
        for offset, size in blocks:
            clipped = blob(name).clip(offset, size)
            ran[offset : offset + clipped] = b"\1" * clipped
        self.fell[name].update(fell)
        self.taken[name].update(taken)

    def seen(self, names: Iterable[str] = RECORDED) -> dict[tuple[str, int], Seen]:
        """Every instruction of these blobs' sources."""
        found: dict[tuple[str, int], Seen] = defaultdict(Seen)
        for name in names:
            self._add(blob(name), found)
        return dict(found)

    def _add(self, blob: Blob, found: dict[tuple[str, int], Seen]) -> None:
        ran = self.ran.get(blob.name, bytearray(len(blob.text)))
        for instruction in blob.instructions:
            seen = found[instruction.key]
            end = instruction.offset + instruction.size
            seen.is_branch |= instruction.target is not None
            seen.ran |= bool(ran[instruction.offset])
            seen.fell |= end in self.fell[blob.name]
            seen.taken |= end in self.taken[blob.name]


@cache
def reason(place: str) -> str | None:
    """What a line carries as reason, or one of the macro uses that led there, or the whole file of one."""
    lines = place.split(" from ")
    return next(filter(None, (*map(_own, lines), *map(_of_file, lines))), None)


def _own(line: str) -> str | None:
    name, _, number = line.rpartition(":")
    found = _REASON.search(source(name)[int(number) - 1])
    return found[2] if found else None


def _of_file(line: str) -> str | None:
    found = filter(None, map(_REASON.match, source(line.rpartition(":")[0])))
    return next((match[2] for match in found if match[1] == "not here"), None)


@dataclass(frozen=True, slots=True)
class Gap:
    """A line that does not run whole; `why` is the reason that it carries."""

    line: str
    missing: str
    why: str | None


def gaps(seen: Mapping[tuple[str, int], Seen]) -> list[Gap]:
    """All of them, by file and line."""
    found: dict[tuple[str, str], Gap] = {}
    for (place, _), one in seen.items():
        line = place.partition(" ")[0]
        if one.missing:
            why = reason(place)
            if why is None or (line, one.missing) not in found:
                found[line, one.missing] = Gap(line, one.missing, why)
    return sorted(found.values(), key=lambda gap: (gap.line.rpartition(":")[0], int(gap.line.rpartition(":")[2])))


def stale(seen: Mapping[tuple[str, int], Seen]) -> list[str]:
    """Lines that carry a reason although all of them runs."""
    short = {gap.line for gap in gaps(seen)}
    lines = {place.partition(" ")[0] for place, _ in seen}
    return sorted(line for line in lines - short if _own(line))


def share(part: int, whole: int) -> str:
    """As people write it."""
    return f"{part} of {whole} ({100 * part / whole:.1f} %)"


def summary(traces: Traces) -> Iterator[str]:
    """The table."""
    yield f"{'blob':32}{'instructions':>24}{'sides of branches':>24}"
    for name in RECORDED:
        yield _row(name, traces.seen([name]).values())
    yield _row("source lines, in whichever blob", traces.seen().values())


def _row(name: str, seen: Iterable[Seen]) -> str:
    seen = list(seen)
    branches = [one for one in seen if one.is_branch]
    sides = sum(one.fell + one.taken for one in branches)
    ran = share(sum(one.ran for one in seen), len(seen))
    return f"{name:32}{ran:>24}{share(sides, 2 * len(branches)):>24}"
