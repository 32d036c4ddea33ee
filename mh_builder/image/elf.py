"""The image as ELF64, for people and their tools: readelf, objdump, gdb, lief.

Source: System V gABI, chapters 4 and 5. `p_paddr` is the mirror GPA at the link base.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mh_builder.image.model import Image, PlacedSection, PlacedSymbol
from mh_builder.paging import PAGE_BYTES, whole_pages

EM_X86_64 = 62
ET_EXEC = 2
PT_LOAD, PF_X, PF_W, PF_R = 1, 1, 2, 4
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS = 1, 2, 3, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_FILE = 0, 1, 2, 4
SHN_ABS = 0xFFF1

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)


class _Strings:
    """A string table under construction."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset


@dataclass(frozen=True)
class _Rows:
    """Symbol table rows, the local ones first; `local_count` includes the null row."""

    data: bytes
    local_count: int


def write_elf(image: Image) -> bytes:
    """The whole ELF file; the flat binary lies at the first page behind the program headers."""
    sections = [section for section in image.sections if section.size]
    start = whole_pages(_HEADER.size + len(sections) * _PROGRAM.size)
    programs = b"".join(_program(section, image, start) for section in sections)
    strings, names = _Strings(), _Strings()
    rows = _symbols(image.symbols, sections, strings)
    body = bytearray(start) + image.data
    headers = [bytes(_SECTION.size), *(_section(section, names, start) for section in sections)]
    for title, kind, data, link, info, align, size in (
        (".symtab", SHT_SYMTAB, rows.data, len(headers) + 1, rows.local_count, 8, _SYMBOL.size),
        (".strtab", SHT_STRTAB, bytes(strings.data), 0, 0, 1, 0),
    ):
        offset = _append(body, data)
        headers.append(_SECTION.pack(names.add(title), kind, 0, 0, offset, len(data), link, info, align, size))
    name = names.add(".shstrtab")
    offset = _append(body, bytes(names.data))
    headers.append(_SECTION.pack(name, SHT_STRTAB, 0, 0, offset, len(names.data), 0, 0, 1, 0))
    table = _append(body, b"".join(headers))
    entry = image.symbol("entry64").value
    body[: _HEADER.size] = _HEADER.pack(
        _IDENT, ET_EXEC, EM_X86_64, 1, entry, _HEADER.size, table, 0,
        _HEADER.size, _PROGRAM.size, len(sections), _SECTION.size, len(headers), len(headers) - 1,
    )  # fmt: skip
    body[_HEADER.size : _HEADER.size + len(programs)] = programs
    return bytes(body)


def _append(body: bytearray, data: bytes) -> int:
    body += bytes(-len(body) % 8)
    offset = len(body)
    body += data
    return offset


def _program(section: PlacedSection, image: Image, start: int) -> bytes:
    flags = PF_R | (PF_W if section.writable else 0) | (PF_X if section.executable else 0)
    gpa = image.space.base + section.offset
    return _PROGRAM.pack(
        PT_LOAD, flags, start + section.offset, section.va, gpa, section.stored, section.size, PAGE_BYTES
    )


def _section(section: PlacedSection, names: _Strings, start: int) -> bytes:
    kind = SHT_PROGBITS if section.stored else SHT_NOBITS
    flags = SHF_ALLOC | (SHF_WRITE if section.writable else 0) | (SHF_EXECINSTR if section.executable else 0)
    offset = start + section.offset
    return _SECTION.pack(names.add(section.name), kind, flags, section.va, offset, section.size, 0, 0, PAGE_BYTES, 0)


def _symbols(symbols: Sequence[PlacedSymbol], sections: Sequence[PlacedSection], strings: _Strings) -> _Rows:
    numbers = {section.name: index for index, section in enumerate(sections, start=1)}
    ends = {section.name: section.va + section.size for section in sections}
    sizes = dict(_sizes(symbols, ends))
    rows = [bytes(_SYMBOL.size)]
    named = [symbol for symbol in symbols if symbol.section is not None and _is_kept(symbol)]
    for origin in sorted({symbol.origin for symbol in named if not symbol.is_global}):
        rows.append(_SYMBOL.pack(strings.add(origin), STT_FILE, 0, SHN_ABS, 0, 0))
        mine = [symbol for symbol in named if symbol.origin == origin and not symbol.is_global]
        rows.extend(_row(symbol, numbers, sizes, strings) for symbol in mine)
    local_count = len(rows)
    rows.extend(_row(symbol, numbers, sizes, strings) for symbol in named if symbol.is_global)
    return _Rows(b"".join(rows), local_count)


def _is_kept(symbol: PlacedSymbol) -> bool:
    # GNU as keeps neither `.L` labels nor numbered ones.
    return not symbol.name.startswith(".L") and "@" not in symbol.name


def _row(symbol: PlacedSymbol, numbers: dict[str, int], sizes: dict[str, int], strings: _Strings) -> bytes:
    binding = 1 if symbol.is_global else 0
    kind = STT_NOTYPE
    if symbol.is_global and symbol.origin != "linker":
        kind = STT_FUNC if symbol.section == ".text" else STT_OBJECT
    size = sizes.get(symbol.name, 0) if symbol.is_global else 0
    section = numbers.get(symbol.section or "", SHN_ABS)
    return _SYMBOL.pack(strings.add(symbol.name), binding << 4 | kind, 0, section, symbol.value, size)


def _sizes(symbols: Sequence[PlacedSymbol], ends: dict[str, int]) -> Iterator[tuple[str, int]]:
    """(global symbol, bytes up to the next global one or the end of its section)."""
    for section, end in ends.items():
        mine = sorted((s for s in symbols if s.is_global and s.section == section), key=lambda s: s.value)
        for symbol, following in pairwise(mine):
            yield symbol.name, following.value - symbol.value
        if mine:
            yield mine[-1].name, end - mine[-1].value
