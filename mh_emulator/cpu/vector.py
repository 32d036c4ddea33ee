"""AES, products without carries, shuffles and sums of emulated CPUs, in the instructions of this computer: vector.s.

unicorn computes most of them bit by bit and byte by byte, and loads in one what it has stored by halves, which waits.
Its interface has no way to say otherwise, so the first bytes of those functions, in this process's copy of the
library, become jumps. Their results are the same. Where the library is not the one that is known, or this computer
lacks an instruction, everything stays as it is.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import unicorn
from unicorn.unicorn_py3.unicorn import uclib

from mh_builder.asm import assemble
from mh_builder.asm.native import Functions, is_possible
from mh_builder.paging import PAGE_BYTES

KNOWN_VERSION = "2.1.4"
"""The unicorn whose functions take what vector.s takes."""

NAMES = {
    name: f"helper_{name}_xmm_x86_64"
    for name in ("aesenc", "aesenclast", "pshufb", "pclmulqdq", "pxor", "paddq", "por")
}
"""Names in vector.s, and of unicorn's functions."""

NEEDED = 1 << 1 | 1 << 9 | 1 << 25
"""PCLMULQDQ, SSSE3 and AES in ECX of CPUID function 1. Source: AMD64 APM volume 3, E.3.2."""

ANCHOR = "uc_version"
"""A function whose address everybody may ask for."""

_JUMP, _MOV_RAX, _JMP_RAX = struct.Struct("<2sQ2s"), b"\x48\xb8", b"\xff\xe0"
_SECTIONS_AT, _SECTION_SIZE_AT = 0x28, 0x3A
_SECTION = struct.Struct("<4xI16xQQI20x")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB = 2


class _Section(NamedTuple):
    kind: int
    offset: int
    size: int
    link: int


class Symbol(NamedTuple):
    """A function of a library: its address where the library is loaded at 0, and its bytes."""

    value: int
    size: int


def library() -> Path:
    """The file of the unicorn in this process."""
    return Path(uclib._name)  # noqa: SLF001


def find_symbols(path: Path, names: Iterable[str]) -> dict[str, Symbol]:
    """Give what the symbol table of an ELF64 file has of `names`. Source: System V ABI, chapter 4."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (start,) = struct.unpack_from("<Q", data, _SECTIONS_AT)
        size, count = struct.unpack_from("<HH", data, _SECTION_SIZE_AT)
        sections = [_Section(*_SECTION.unpack_from(data, start + n * size)) for n in range(count)]
        table = next((section for section in sections if section.kind == _SYMTAB), None)
        if table is None:
            return {}
        symbols, texts = (data[one.offset : one.offset + one.size] for one in (table, sections[table.link]))
    places = {name: texts.find(b"\0" + name.encode() + b"\0") for name in names}
    return {name: _symbol(symbols, at + 1) for name, at in places.items() if at >= 0}


def _symbol(symbols: bytes, name_at: int) -> Symbol:
    wanted, at = struct.pack("<I", name_at), -1
    while at % _SYMBOL.size:
        at = symbols.index(wanted, at + 1)
    *_, value, size = _SYMBOL.unpack_from(symbols, at)
    return Symbol(value, size)


@cache
def use_native() -> Mapping[str, int]:
    """Replace unicorn's functions, once for all engines; return their addresses, none where that cannot be."""
    functions = _functions()
    if functions is None or unicorn.__version__ != KNOWN_VERSION:
        return MappingProxyType({})
    symbols = find_symbols(library(), (ANCHOR, *NAMES.values()))
    if any(known not in symbols or symbols[known].size < _JUMP.size for known in (ANCHOR, *NAMES.values())):
        return MappingProxyType({})
    base = _address(getattr(uclib, ANCHOR)) - symbols[ANCHOR].value
    places = {name: base + symbols[known].value for name, known in NAMES.items()}
    if not all(_is_writable(place) for place in places.values()):
        return MappingProxyType({})
    for name, place in places.items():
        ctypes.memmove(place, _JUMP.pack(_MOV_RAX, functions.address(name), _JMP_RAX), _JUMP.size)
    return MappingProxyType(places)


@cache
def _functions() -> Functions | None:
    """The ones of vector.s, where this computer has their instructions; for ever, as unicorn jumps there."""
    if not is_possible():
        return None
    functions = Functions(assemble(Path(__file__).with_name("vector.s"), name="vector.s"))
    features = ctypes.CFUNCTYPE(ctypes.c_uint32)(functions.address("cpu_features"))()
    return functions if features & NEEDED == NEEDED else None


def _is_writable(place: int) -> bool:
    """Make the pages of a function writable, if the system lets its process do that."""
    start = place // PAGE_BYTES * PAGE_BYTES
    size = place + _JUMP.size - start
    rights = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    return bool(ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), rights) == 0)


def _address(function: Any) -> int:  # noqa: ANN401
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
