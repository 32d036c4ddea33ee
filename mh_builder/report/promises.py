"""Rules that only an image of ours promises: what its sections, its scheme and its header say of the tables."""

from __future__ import annotations

from collections.abc import Iterator

from mh_builder.image.model import PlacedSection
from mh_builder.paging import PAGE_BYTES
from mh_builder.report.finding import Finding
from mh_builder.report.layout import RAM, START, UNEXPECTED, VMSAS, Layout, Plan, Region
from mh_builder.report.mapping import Mapping
from mh_builder.report.rules import overlapping
from mh_builder.schemes.space import HELPER_VA, NULL_BYTES, Range

GUARDED = (".fault_stack", ".stack")


def writable_tables(layout: Layout) -> Iterator[Finding]:
    """Who can write a table can map everything."""
    tables = [_page(gpa) for gpa in sorted(layout.reading.tables)]
    writable = [region.mapping for region in layout.regions if region.mapping.writable]
    for table, mapping in overlapping(layout, tables, writable):
        yield Finding(f"the table at GPA {table.gpa:#x} is writable at {layout.describe(mapping)}", (mapping,))


def _page(gpa: int) -> Mapping:
    return Mapping(gpa, gpa, PAGE_BYTES, PAGE_BYTES, 0, writable=False, user=False, executable=False, private=True)


def missing_pages(layout: Layout) -> Iterator[Finding]:
    """Pages of the image that the helper does not see."""
    plan = _plan(layout)
    for section in plan.sections:
        for hole in _holes(layout, section.va, section.va + _whole(section)):
            yield Finding(f"{section.name} is not mapped at {hole}")


def misplaced_pages(layout: Layout) -> Iterator[Finding]:
    """Pages of the image that are somewhere else."""
    plan = _plan(layout)
    for region, section in _of_sections(layout, plan):
        expected = plan.base + section.offset + region.mapping.va - section.va
        if region.mapping.gpa != expected or region.mapping.period:
            yield Finding(f"{layout.describe(region.mapping)} is not at GPA {expected:#x}", (region.mapping,))


def wrong_rights(layout: Layout) -> Iterator[Finding]:
    """Pages that allow more or less than their section, the RAM window and the 32-bit start included."""
    for region in layout.regions:
        expected = _rights(region.purpose, _plan(layout))
        if expected and region.mapping.rights != expected:
            yield Finding(f"{layout.describe(region.mapping)} should be {expected}", (region.mapping,))


def _rights(purpose: str, plan: Plan) -> str:
    known = {RAM: "rw-", VMSAS: "rw-", START: "r-x"} | {section.name: section.rights for section in plan.sections}
    return known.get(purpose, "")


def wrong_view(layout: Layout) -> Iterator[Finding]:
    """Pages whose C-bit is not that of their section; all RAM and the 32-bit start are private."""
    shared = {section.name for section in _plan(layout).sections if not section.private}
    for region in layout.regions:
        if region.purpose != UNEXPECTED and region.mapping.private == (region.purpose in shared):
            expected = "shared" if region.purpose in shared else "private"
            yield Finding(f"{layout.describe(region.mapping)} should be {expected}", (region.mapping,))


def missing_guards(layout: Layout) -> Iterator[Finding]:
    """Stacks that would run into the section below."""
    for section in _plan(layout).sections:
        if not section.name.startswith(GUARDED):
            continue
        guard = section.va - PAGE_BYTES
        for mapping in _within(layout, guard, section.va):
            yield Finding(f"no guard below {section.name}: {layout.describe(mapping)}", (mapping,))


def null_pages(layout: Layout) -> Iterator[Finding]:
    """Memory that a wiped pointer, or a field behind one, would reach."""
    for mapping in _within(layout, 0, NULL_BYTES):
        yield Finding(f"{layout.describe(mapping)} is where a wiped pointer leads", (mapping,))


def user_pages(layout: Layout) -> Iterator[Finding]:
    """The helper has no user mode."""
    for region in layout.regions:
        if region.mapping.user:
            yield Finding(f"{layout.describe(region.mapping)} is for user mode", (region.mapping,))


def aliases(layout: Layout) -> Iterator[Finding]:
    """Memory with two virtual addresses. The page of the 32-bit start has two by design, with the same rights."""
    mappings = [region.mapping for region in layout.regions if region.purpose != START]
    for first, second in overlapping(layout, mappings, mappings):
        if first.va < second.va:
            yield Finding(f"{layout.describe(first)} is seen again at {layout.describe(second)}", (first, second))
    for region in layout.regions:
        if region.mapping.period:
            yield Finding(f"{layout.describe(region.mapping)} repeats", (region.mapping,))


def reachable_helper(layout: Layout) -> Iterator[Finding]:
    """Mappings outside of the helper's own that reach its memory."""
    plan = _plan(layout)
    own = [_page(plan.base)._replace(size=plan.memory_bytes)]
    for region in layout.regions:
        if region.mapping.va >= HELPER_VA or region.purpose == START:
            continue
        for _, other in overlapping(layout, own, [region.mapping]):
            yield Finding(f"{layout.describe(other)} reaches the helper, which is at GPA {plan.helper}", (other,))


def missing_ram(layout: Layout) -> Iterator[Finding]:
    """Request addresses that the helper could not serve, and those it should not."""
    plan = _plan(layout)
    for start, end in _served(plan):
        for hole in _holes(layout, plan.window_va + start, plan.window_va + end):
            kind = "GPA" if plan.by_gpa else "ram_addr"
            named = Range(hole.start - plan.window_va, hole.end - plan.window_va)
            yield Finding(f"RAM at {kind} {named} is not mapped at {hole}")


def _served(plan: Plan) -> Iterator[tuple[int, int]]:
    start = 0
    for hole in (*plan.protected, Range(plan.ram_limit, plan.ram_limit)):
        if start < min(hole.start, plan.ram_limit):
            yield start, min(hole.start, plan.ram_limit)
        start = max(start, hole.end)


def misplaced_ram(layout: Layout) -> Iterator[Finding]:
    """Requests that would reach other memory than they name."""
    plan = _plan(layout)
    for region in layout.regions:
        mapping = region.mapping
        expected = plan.window + mapping.va - plan.window_va
        if region.purpose == RAM and (mapping.gpa != expected or mapping.period):
            yield Finding(f"{layout.describe(mapping)} is not at GPA {expected:#x}", (mapping,))


def unexpected(layout: Layout) -> Iterator[Finding]:
    """Mappings that are neither helper nor RAM: device memory, flash, or another view."""
    for region in layout.regions:
        if region.purpose == UNEXPECTED:
            yield Finding(f"{layout.describe(region.mapping)} is neither helper nor RAM", (region.mapping,))


def misplaced_vmsas(layout: Layout) -> Iterator[Finding]:
    """Requests for VMSAs that would reach other memory."""
    plan = _plan(layout)
    for region in layout.regions:
        expected = plan.vmsa_gpa + region.mapping.va - plan.vmsas.start
        if region.purpose == VMSAS and region.mapping.gpa != expected:
            yield Finding(f"{layout.describe(region.mapping)} is not at GPA {expected:#x}", (region.mapping,))


def _plan(layout: Layout) -> Plan:
    if layout.plan is None:
        raise AssertionError("the audit asks for a plan first")
    return layout.plan


def _whole(section: PlacedSection) -> int:
    return section.pages * PAGE_BYTES


def _of_sections(layout: Layout, plan: Plan) -> Iterator[tuple[Region, PlacedSection]]:
    sections = {section.name: section for section in plan.sections}
    for region in layout.regions:
        if region.purpose in sections:
            yield region, sections[region.purpose]


def _within(layout: Layout, start: int, end: int) -> Iterator[Mapping]:
    for mapping in layout.reading.mappings:
        if mapping.va < end and start < mapping.end:
            yield from mapping.parts(max(start, mapping.va), min(end, mapping.end))


def _holes(layout: Layout, start: int, end: int) -> Iterator[Range]:
    """What of the virtual addresses is not mapped."""
    position = start
    for mapping in _within(layout, start, end):
        if mapping.va > position:
            yield Range(position, mapping.va)
        position = mapping.end
    if position < end:
        yield Range(position, end)
