"""Calls before the instructions at single addresses: many of them, and all forgotten at once.

For every instruction that it translates unicorn looks at every hook: 10,000 of them cost 190 us an instruction.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from unicorn import unicorn_const
from unicorn.unicorn_py3.unicorn import HOOK_CODE_CFUNC, uccallback, uclib

from mh_emulator.cpu.engine import Engine, UnicornError


class CodeHooks:
    """Hooks of `engine` that share one callback, so one costs microseconds; unicorn's own interface makes one each."""

    def __init__(self, engine: Engine, callback: Callable[[int], None]) -> None:
        def before(_uc: object, address: int, _size: int, _key: object) -> None:
            callback(address)

        self._uc = engine.uc
        self._thunk = uccallback(self._uc, HOOK_CODE_CFUNC)(before)
        self._hooks: list[int] = []

    def __len__(self) -> int:
        return len(self._hooks)

    def add(self, address: int) -> None:
        """Call back before the instruction there, in code that is translated from now on."""
        hook, where = ctypes.c_size_t(), ctypes.c_uint64(address)
        handle, kind = self._uc._uch, unicorn_const.UC_HOOK_CODE  # noqa: SLF001
        status = uclib.uc_hook_add(handle, ctypes.byref(hook), kind, self._thunk, None, where, where)
        if status != unicorn_const.UC_ERR_OK:
            raise UnicornError(status)
        self._hooks.append(hook.value)

    def forget(self) -> None:
        """Remove all; no translated code may be left. Unicorn asks for a translation of each address."""
        for hook in self._hooks:
            uclib.uc_hook_del(self._uc._uch, ctypes.c_size_t(hook))  # noqa: SLF001
        self._hooks.clear()
