"""Objects and an address space become an image.

Phases: merge the objects' sections; place all sections; map them and the RAM window; repeat the last two
until header and tables keep their size (the hole for the image depends on the image's size, and the
tables on the hole); resolve relocations; write header and tables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Flag, auto

from mh_abi import abi
from mh_builder.asm import SECTION_NAMES, ObjectFile, Relocation, RelocationKind
from mh_builder.header import header, header_bytes
from mh_builder.image.model import MAX_RUN, Image, ImageRelocation, PlacedSection, PlacedSymbol, vcpu_section
from mh_builder.paging import PAGE_BYTES, Tables, whole_pages
from mh_builder.schemes.space import HELPER_VA, AddressSpace, Options, Scheme
from mh_builder.symbols import LinkError, MergedSection, SymbolTable, merge, merge_behind

SECRET_BYTES = PAGE_BYTES

_MAX_ROUNDS = 8


def link(objects: Sequence[ObjectFile], scheme: Scheme, options: Options) -> Image:
    """Link `objects` for the address space that `scheme` makes of `options`.

    Raises `LinkError` for undefined, doubled or unreachable symbols, `LayoutError` where the image does not fit.
    """
    plan = _settle(objects, scheme, options)
    symbols = SymbolTable(objects, plan.merged, plan.sections, None if plan.space.moves else plan.space.base)
    data = bytearray(sum(whole_pages(section.stored) for section in plan.sections.values()))
    for section in plan.merged.values():
        offset = plan.sections[section.home].offset
        data[offset : offset + len(section.data)] = section.data
    _resolve(objects, plan, symbols, data)
    if options.owner:
        start = plan.sections[".owner"].offset
        data[start : start + len(options.owner)] = options.owner
    tables = plan.tables.dumps(plan.space.base, plan.space.c_mask)
    data[plan.tables.first_table : plan.tables.first_table + len(tables)] = tables
    head = header(
        plan.space,
        plan.sections,
        plan.relocations,
        entry=symbols.required("entry64"),
        entry32=0 if plan.entry32 is None else plan.space.base + plan.entry32,
        image_bytes=len(data),
    )
    data[: len(head)] = head
    return Image(plan.space, tuple(plan.sections.values()), tuple(symbols.placed()), plan.relocations, bytes(data))


@dataclass(frozen=True)
class _Plan:
    """Where everything lies."""

    merged: dict[str, MergedSection]
    sections: dict[str, PlacedSection]
    space: AddressSpace
    tables: Tables
    relocations: tuple[ImageRelocation, ...]
    entry32: int | None
    """Offset of the 32-bit start from the base of the image, where an object defines one."""


def _settle(objects: Sequence[ObjectFile], scheme: Scheme, options: Options) -> _Plan:
    merged = {name: merge(objects, name) for name in SECTION_NAMES}
    constants, header_size, table_size = merged[".rodata"], 0, PAGE_BYTES
    merged[".rodata"] = merge_behind(objects, ".rodata", ".header", header_size)
    for _ in range(_MAX_ROUNDS):
        sections = {section.name: section for section in _place(merged, header_size, table_size, options)}
        ring = sections[".ring"]
        space = scheme.space(options, ring.offset + ring.size)
        entry32 = _entry32(objects, merged, sections)
        tables = _map(sections.values(), space, entry32)
        words = [
            *_table_words(tables, space),
            *(
                (offset, 1, _kinds(space, moves=True, private=True))
                for _, relocation, offset in _fields(objects, merged, sections)
                if relocation.kind is RelocationKind.PRIVATE64
            ),
            (abi.mh_descriptor.fields["cr3"].offset, 1, _kinds(space, moves=True, private=True)),
        ]
        relocations = _runs(words)
        needed = header_bytes(space, len(relocations))
        if (needed, tables.size) == (header_size, table_size):
            return _Plan(merged, sections, space, tables, relocations, entry32)
        header_size, table_size = needed, tables.size
        if merged[".rodata"] is not constants:
            merged[".rodata"] = _behind_header(objects, header_size) or constants
    raise AssertionError("header and tables only grow with each other's pages, which settles at once")


def _behind_header(objects: Sequence[ObjectFile], header_size: int) -> MergedSection | None:
    """The constants, where what the header leaves of its last page has room for them: both are read only."""
    behind = merge_behind(objects, ".rodata", ".header", header_size)
    return behind if behind.size <= whole_pages(header_size) else None


class _Kind(Flag):
    """What a section is, besides private, readable memory."""

    PLAIN = 0
    STORED = auto()
    WRITABLE = auto()
    EXECUTABLE = auto()
    SHARED = auto()
    GUARDED = auto()
    """A guard lies below (MH_GUARD_BYTES)."""


_CODE = _Kind.STORED | _Kind.EXECUTABLE
_STACK = _Kind.WRITABLE | _Kind.GUARDED


def _place(
    merged: dict[str, MergedSection], header_size: int, table_size: int, options: Options
) -> Iterator[PlacedSection]:
    pieces = {section.home: tuple(section.pieces) for section in merged.values()}
    offset = 0
    for name, size, kind in _plan(merged, header_size, table_size, options):
        offset += abi.MH_GUARD_BYTES if _Kind.GUARDED in kind else 0
        yield PlacedSection(
            name,
            offset,
            size,
            stored=size if _Kind.STORED in kind else 0,
            writable=_Kind.WRITABLE in kind,
            executable=_Kind.EXECUTABLE in kind,
            private=_Kind.SHARED not in kind,
            pieces=pieces.get(name, ()),
        )
        offset += whole_pages(size)


def _plan(
    merged: dict[str, MergedSection], header_size: int, table_size: int, options: Options
) -> Iterator[tuple[str, int, _Kind]]:
    """(name, bytes, kind) of all sections, in their order."""
    pages = (options.ram_limit + abi.MH_VMSA_BYTES) // PAGE_BYTES
    bitmap_size = -(-pages // 8)
    constants = merged[".rodata"]
    is_behind = constants.home == ".header"
    yield ".header", constants.size if is_behind else header_size, _Kind.STORED
    yield ".text", merged[".text"].size, _CODE
    yield ".rodata", 0 if is_behind else constants.size, _Kind.STORED
    if options.owner:
        yield ".owner", abi.MH_OWNER_KEY_BYTES, _Kind.STORED
    yield ".tables", table_size, _Kind.STORED
    yield ".data", merged[".data"].size, _Kind.STORED | _Kind.WRITABLE
    yield ".bss", merged[".bss"].size, _Kind.WRITABLE
    yield ".bitmap", bitmap_size, _Kind.WRITABLE
    yield ".moved_bitmap", bitmap_size, _Kind.WRITABLE
    yield ".shared_bitmap", bitmap_size, _Kind.WRITABLE
    if options.owner:
        yield ".validated", bitmap_size, _Kind.WRITABLE
    yield ".authenticators", pages * abi.MH_AUTHENTICATOR_BYTES if options.strict else 0, _Kind.WRITABLE
    yield from _owned(options)
    # Each block at the same distance from the one before, with the stacks of its vCPU below it.
    for number in range(options.vcpus):
        yield vcpu_section(".fault_stack", number), abi.MH_FAULT_STACK_BYTES, _STACK
        yield vcpu_section(".stack", number), abi.MH_STACK_BYTES, _STACK
        yield vcpu_section(".vcpu", number), merged[".vcpu"].size, _Kind.WRITABLE
    yield ".ring", options.vcpus * abi.MH_RING_BYTES, _Kind.WRITABLE | _Kind.SHARED


def _owned(options: Options) -> Iterator[tuple[str, int, _Kind]]:
    """Where the owner's record comes to, and what a helper needs that fetches it itself."""
    if not options.owner:
        yield ".secret", SECRET_BYTES, _Kind.PLAIN
        return
    yield ".secret", SECRET_BYTES, _Kind.WRITABLE
    yield ".snp_secrets", PAGE_BYTES, _Kind.WRITABLE


def _entry32(
    objects: Sequence[ObjectFile], merged: dict[str, MergedSection], sections: dict[str, PlacedSection]
) -> int | None:
    for unit in objects:
        for symbol in unit.symbols:
            if (symbol.name, symbol.section, symbol.is_global) == ("entry32", ".text", True):
                return sections[".text"].offset + merged[".text"].starts[unit.name] + symbol.value
    return None


def _map(sections: Iterable[PlacedSection], space: AddressSpace, entry32: int | None) -> Tables:
    sections = list(sections)
    first_table = next(section.offset for section in sections if section.name == ".tables")
    tables = Tables(first_table, largest_page=space.options.largest_page)
    for span in (*space.ram_spans(), space.vmsa_span()):
        tables.map(span)
    for section in sections:
        if section.size:
            tables.map(
                space.image_span(
                    section.offset,
                    whole_pages(section.size),
                    writable=section.writable,
                    executable=section.executable,
                    private=section.private,
                )
            )
    if entry32 is not None:
        tables.map(space.identity_span(entry32 // PAGE_BYTES * PAGE_BYTES))
    return tables


def _kinds(space: AddressSpace, *, moves: bool, private: bool) -> int:
    base = abi.MH_RELOCATE_BASE if moves and space.moves else 0
    c_bit = abi.MH_RELOCATE_CBIT if private and space.options.c_bit is None else 0
    return int(base | c_bit)


def _table_words(tables: Tables, space: AddressSpace) -> Iterator[tuple[int, int, int]]:
    for offset, run in tables.runs():
        yield tables.first_table + offset, run.count, _kinds(space, moves=run.moves, private=run.private)


def _fields(
    objects: Sequence[ObjectFile], merged: dict[str, MergedSection], sections: dict[str, PlacedSection]
) -> Iterator[tuple[ObjectFile, Relocation, int]]:
    """(object, relocation, offset of its field from the base of the image) of all objects."""
    for unit in objects:
        for section in unit.sections:
            joined = merged[section.name]
            start = sections[joined.home].offset + joined.starts.get(unit.name, 0)
            for relocation in section.relocations:
                yield unit, relocation, start + relocation.offset


def _runs(words: Iterable[tuple[int, int, int]]) -> tuple[ImageRelocation, ...]:
    """Join neighbouring words, (offset, count, kinds), that are of the same kinds."""
    runs: list[ImageRelocation] = []
    for offset, count, kinds in sorted(words):
        if not kinds:
            continue
        start, total = offset, count
        if runs and (runs[-1].end, runs[-1].kinds) == (offset, kinds):
            last = runs.pop()
            start, total = last.offset, last.count + count
        runs += (
            ImageRelocation(start + 8 * done, min(MAX_RUN, total - done), kinds) for done in range(0, total, MAX_RUN)
        )
    return tuple(runs)


def _resolve(objects: Sequence[ObjectFile], plan: _Plan, symbols: SymbolTable, data: bytearray) -> None:
    reasons: list[str] = []
    for unit, relocation, offset in _fields(objects, plan.merged, plan.sections):
        symbol = symbols.find(unit, relocation.symbol)
        if symbol is None:
            reasons.append(f"{relocation.place}: error: undefined symbol '{relocation.symbol}'")
            continue
        try:
            _apply(data, offset, relocation, symbol.value, plan.space)
        except struct.error:
            reasons.append(_out_of_reach(relocation, offset, symbol))
    if reasons:
        raise LinkError(reasons)


def _apply(data: bytearray, offset: int, relocation: Relocation, symbol: int, space: AddressSpace) -> None:
    target = symbol + relocation.addend
    match relocation.kind:
        case RelocationKind.REL32:
            struct.pack_into("<i", data, offset, target - (HELPER_VA + offset))
        case RelocationKind.ABS64:
            struct.pack_into("<Q", data, offset, target)
        case RelocationKind.GATE:
            struct.pack_into("<H", data, offset, target & 0xFFFF)
            struct.pack_into("<HI", data, offset + 6, target >> 16 & 0xFFFF, target >> 32)
        case RelocationKind.ABS32:
            struct.pack_into("<I", data, offset, target)
        case RelocationKind.PRIVATE64:
            gpa = space.base + target - HELPER_VA
            struct.pack_into("<Q", data, offset, gpa | space.c_mask)


def _out_of_reach(relocation: Relocation, offset: int, symbol: PlacedSymbol) -> str:
    return (
        f"{relocation.place}: error: symbol '{symbol.name}' at {symbol.value:#x} is out of reach "
        f"of {relocation.kind.name} at {HELPER_VA + offset:#x}"
    )
