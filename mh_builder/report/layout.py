"""A layout: what tables map, and what lies behind the guest-physical addresses that they map to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mh_builder.image.model import PlacedSection
from mh_builder.paging import PAGE_BYTES, Geometry, whole_pages
from mh_builder.report.cpu import Cpu
from mh_builder.report.mapping import ACTED_ON, MARKS, Mapping, joined
from mh_builder.report.memory_type import Pat, type_name
from mh_builder.report.physical import PhysicalMemory
from mh_builder.report.reader import Reading
from mh_builder.schemes.space import PCI_HOLE, Range, human


class Backing(NamedTuple):
    """`size` bytes from mirror GPA `gpa`: where the main VM has them (None: nowhere), and their `ram_addr`.

    `ram_addr` None is memory that is no guest RAM, or RAM whose place depends on the guest's PCI hole.
    """

    gpa: int
    size: int
    main_gpa: int | None
    ram_addr: int | None

    @property
    def end(self) -> int:
        """First mirror GPA behind."""
        return self.gpa + self.size

    def part(self, start: int, end: int) -> Backing:
        """The part from mirror GPA `start` to `end`."""
        moved = start - self.gpa
        return Backing(
            start,
            end - start,
            None if self.main_gpa is None else self.main_gpa + moved,
            None if self.ram_addr is None else self.ram_addr + moved,
        )

    @property
    def memory(self) -> tuple[str, int]:
        """Which memory it is: two backings with the same are one memory."""
        if self.ram_addr is not None:
            return "ram_addr", self.ram_addr
        return ("mirror GPA", self.gpa) if self.main_gpa is None else ("main GPA", self.main_gpa)


@dataclass(frozen=True)
class Plan:
    """What an image of ours promises: where it lies, what it is made of, which RAM its requests name."""

    scheme: str
    base: int
    home: int | None
    window: int
    """Mirror GPA of request address 0."""
    window_va: int
    """Its virtual address, as the helper's code takes it from the parameters."""
    ram_limit: int
    memory_bytes: int
    ring_offset: int
    entry32: int
    """Mirror GPA of the 32-bit start, 0 without one."""
    vmsas: Range
    """Virtual addresses of the window for VMSAs."""
    vmsa_gpa: int
    """Mirror GPA of its start."""
    by_gpa: bool
    """Requests carry GPAs, not `ram_addr`."""
    sections: tuple[PlacedSection, ...]
    backings: tuple[Backing, ...]

    @property
    def helper(self) -> Range:
        """The image in the mirror's guest-physical space."""
        return Range(self.base, self.base + self.memory_bytes)

    @property
    def protected(self) -> tuple[Range, ...]:
        """Request addresses that reach the image, or by GPA no RAM."""
        own = () if self.home is None else (Range(self.home, self.home + self.memory_bytes),)
        return (*own, PCI_HOLE) if self.by_gpa else own


@dataclass(frozen=True, slots=True)
class Region:
    """A row of the layout: one mapping with one purpose and one thing behind it."""

    purpose: str
    mapping: Mapping
    backing: Backing | None


@dataclass(frozen=True)
class Layout:
    """One address space; `plan` is None where the tables are not those of an image of ours."""

    name: str
    memory: PhysicalMemory
    reading: Reading
    plan: Plan | None = None
    cpu: Cpu | None = None
    """The CPU whose tables these are, where the dump has its registers."""
    cpus: tuple[Cpu, ...] = ()
    """All CPUs of the dump."""
    pat: Pat | None = None
    """MSR PAT, where it is known."""
    counted: int = ACTED_ON
    """The bits of a leaf that make two mappings of neighbours: with `MARKS` all bits."""

    @property
    def geometry(self) -> Geometry:
        """How entries are read."""
        return self.reading.geometry

    @property
    def has_marks(self) -> bool:
        """Whether accessed, dirty and available bits count."""
        return bool(self.counted & MARKS)

    @property
    def backings(self) -> tuple[Backing, ...]:
        """What lies behind the guest-physical space; without a plan nothing is known."""
        return () if self.plan is None else self.plan.backings

    @cached_property
    def mappings(self) -> tuple[Mapping, ...]:
        """All mappings, with neighbours joined that allow the same."""
        return tuple(joined(self.reading.mappings, self.counted))

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The layout as rows, by virtual address."""
        if self.plan is None:
            return tuple(Region("", mapping, None) for mapping in self.mappings)
        return tuple(
            Region(purpose, part, backing)
            for mapping in self.mappings
            for purpose, piece in _purposes(mapping, self.plan)
            for part, backing in self.backed(piece)
        )

    def memory_type(self, mapping: Mapping) -> str:
        """WB, UC ...; PAT1 to PAT7 where the MSR is not known."""
        return type_name(mapping.pat_index, self.pat)

    def view(self, mapping: Mapping) -> str:
        """What the CPU sees through the mapping; nothing to be told where there is no C-bit."""
        return mapping.view if self.geometry.c_bit is not None else "-"

    def describe(self, mapping: Mapping) -> str:
        """The mapping in words, for a line of a report."""
        view = "" if self.geometry.c_bit is None else f" {mapping.view}"
        repeats = f", again every {mapping.period:#x}" if mapping.period else ""
        purpose = "" if self.plan is None else f" ({purpose_of(mapping, self.plan)})"
        place = f"{mapping.va:#x} to {mapping.end:#x}{purpose} -> GPA {mapping.gpa:#x}"
        odd = "".join(f" {word}" for word in self.attributes(mapping))
        return f"{place} {mapping.rights}{view}{odd} in pages of {human(mapping.page_bytes)}{repeats}"

    def attributes(self, mapping: Mapping) -> tuple[str, ...]:
        """What is not as in most mappings, in words: a type other than WB, global, a key, and marks."""
        type_ = self.memory_type(mapping)
        return (
            *([type_] if type_ != "WB" else []),
            *(["global"] if mapping.is_global else []),
            *([f"key {mapping.key}"] if mapping.key else []),
            *self.marks(mapping),
        )

    def marks(self, mapping: Mapping) -> tuple[str, ...]:
        """What is not as the builder leaves it, where marks count: A or D that is missing, bits of software."""
        if not self.has_marks:
            return ()
        return (
            *([] if mapping.is_accessed else ["not accessed"]),
            *([] if mapping.is_dirty else ["not dirty"]),
            *(f"AVL{bit}" for bit in mapping.available),
        )

    def backed(self, mapping: Mapping) -> Iterator[tuple[Mapping, Backing | None]]:
        """The mapping, cut where what lies behind it changes."""
        if mapping.period:
            inside = [part for part in self.backings if part.gpa <= mapping.gpa and mapping.gpa_end <= part.end]
            yield mapping, inside[0].part(mapping.gpa, mapping.gpa_end) if inside else None
            return
        start = mapping.gpa
        for part in self.backings:
            first, last = max(part.gpa, start), min(part.end, mapping.gpa_end)
            if first >= last:
                continue
            if first > start:
                yield _cut(mapping, start, first), None
            yield _cut(mapping, first, last), part.part(first, last)
            start = last
        if start < mapping.gpa_end:
            yield _cut(mapping, start, mapping.gpa_end), None


def _cut(mapping: Mapping, start: int, end: int) -> Mapping:
    """The part of a mapping that does not repeat which reaches GPA `start` to `end`."""
    return mapping._replace(va=mapping.va + start - mapping.gpa, gpa=start, size=end - start)


RAM = "guest RAM"
START = "32-bit start"
VMSAS = "VMSAs"
UNEXPECTED = "unexpected"


def purpose_of(mapping: Mapping, plan: Plan) -> str:
    """What the start of the mapping is for."""
    return next(_purposes(mapping, plan))[0]


def _purposes(mapping: Mapping, plan: Plan) -> Iterator[tuple[str, Mapping]]:
    """The mapping, cut at the borders of what it is for."""
    names = [
        (section.name, section.va, section.va + whole_pages(section.size)) for section in plan.sections if section.size
    ]
    ram = (RAM, plan.window_va, plan.window_va + plan.ram_limit)
    start = plan.entry32 & -PAGE_BYTES
    # The parameters of a damaged image may claim what is something else's as well: the first counts.
    vmsas = (VMSAS, plan.vmsas.start, plan.vmsas.end)
    places = [*([(START, start, start + PAGE_BYTES)] if start else []), *names, ram, vmsas]
    position = mapping.va
    while position < mapping.end:
        purpose, end = _purpose_at(position, mapping.end, places)
        for part in mapping.parts(position, end):
            yield purpose, part
        position = end


def _purpose_at(va: int, limit: int, places: Sequence[tuple[str, int, int]]) -> tuple[str, int]:
    """(purpose, where it ends) at `va`; the first of `places` counts."""
    for number, (name, start, end) in enumerate(places):
        if start <= va < end:
            borders = [other for _, other, _ in places[:number] if other > va]
            return name, min([end, limit, *borders])
    return UNEXPECTED, min([limit, *(start for _, start, _ in places if start > va)])
