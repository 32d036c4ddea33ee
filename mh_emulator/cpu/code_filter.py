"""Calls before the instructions at single addresses, which machine code looks up in a bitmap: filter.s.

While unicorn counts, it goes through all hooks for each instruction: hundreds of them cost a microsecond an
instruction, so there is one for all addresses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

from unicorn import unicorn_const
from unicorn.unicorn_py3.unicorn import HOOK_CODE_CFUNC, uccallback

from mh_builder.asm import assemble
from mh_builder.asm.native import Function, is_possible, offsets
from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.hooks import EVERYWHERE, add_hook, remove_hook

_FILTER_FIELDS = ("slow", "page", "bits", "count", "pages")
_ENTRY_FIELDS = ("page", "bits")
_NO_PAGE = (1 << 64) - 1
_FIRST_PAGES = 64


class _Filter(ctypes.Structure):
    """`page` and `bits` are of the page that was looked up last."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _FILTER_FIELDS)


class _Entry(ctypes.Structure):
    """The number of a page, and where its bitmap is in this process."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _ENTRY_FIELDS)


class CodeFilter:
    """One hook of `engine` for many addresses; where this process cannot execute it, a hook in Python."""

    def __init__(self, engine: Engine, callback: Callable[[int], None]) -> None:
        def before(_uc: object, address: int, _size: int, _key: object) -> None:
            if address in self._addresses:
                callback(address)

        self._uc = engine.uc
        self._addresses: set[int] = set()
        """Those in a bitmap."""
        self._bitmaps: dict[int, ctypes.Array[ctypes.c_uint8]] = {}
        self._entries = (_Entry * _FIRST_PAGES)()
        self._thunk = uccallback(self._uc, HOOK_CODE_CFUNC)(before)
        self._state = _Filter(slow=ctypes.cast(self._thunk, ctypes.c_void_p).value, page=_NO_PAGE)
        self._state.pages = ctypes.addressof(self._entries)
        self._hook: int | None = None

    def __len__(self) -> int:
        return len(self._addresses)

    def add(self, address: int) -> None:
        """Call back before the instruction there, in code that is translated from now on."""
        if self._hook is None:
            self._hook = self._install()
        page = address // PAGE_BYTES
        if page not in self._bitmaps:
            self._bitmaps[page] = (ctypes.c_uint8 * (PAGE_BYTES // 8))()
            self._put(_Entry(page, ctypes.addressof(self._bitmaps[page])))
        self._addresses.add(address)
        offset = address % PAGE_BYTES
        self._bitmaps[page][offset // 8] |= 1 << offset % 8

    def _put(self, entry: _Entry) -> None:
        count = self._state.count
        if count == len(self._entries):
            self._entries = (_Entry * (2 * count))(*self._entries)
            self._state.pages = ctypes.addressof(self._entries)
        self._entries[count] = entry
        self._state.count += 1

    def _install(self) -> int:
        native, function, data = _native_filter(), self._thunk, None
        if native is not None:
            function, data = ctypes.c_void_p(native.address), ctypes.c_void_p(ctypes.addressof(self._state))
        return add_hook(self._uc, unicorn_const.UC_HOOK_CODE, function, data, EVERYWHERE)

    def forget(self) -> None:
        """Remove all; no translated code may be left. Unicorn asks for a translation of what it has hooked."""
        if self._hook is not None:
            remove_hook(self._uc, self._hook)
        self._hook = None
        self._addresses.clear()
        self._bitmaps.clear()
        self._state.count, self._state.page = 0, _NO_PAGE


@cache
def _native_filter() -> Function | None:
    if not is_possible():
        return None
    symbols = offsets("filter", _Filter) | offsets("entry", _Entry) | {"sizeof.entry": ctypes.sizeof(_Entry)}
    return Function(assemble(Path(__file__).with_name("filter.s"), symbols=symbols, name="filter.s"), "native_filter")
