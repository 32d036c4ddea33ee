"""Calls before the instructions at single addresses: many of them, and all forgotten at once.

For every instruction that it translates unicorn looks at every hook: 10,000 of them cost 190 us an instruction.
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
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.hooks import add_hook, remove_hook


class _Gate(ctypes.Structure):
    """Where the callback is in this process, and the flag."""

    _fields_ = (("slow", ctypes.c_uint64), ("flag", ctypes.c_uint64))


class CodeHooks:
    """Hooks of `engine` that share one callback, so one costs microseconds; unicorn's own interface makes one each.

    With `flag`, it may be that nobody is called while that is 0: a call costs microseconds, and waits for the GIL.
    """

    def __init__(self, engine: Engine, callback: Callable[[int], None], flag: ctypes.c_uint64 | None = None) -> None:
        def before(_uc: object, address: int, _size: int, _key: object) -> None:
            callback(address)

        self._uc = engine.uc
        self._thunk = uccallback(self._uc, HOOK_CODE_CFUNC)(before)
        self._function, self._data = self._thunk, None
        gate = None if flag is None else _native_gate()
        if flag is not None and gate is not None:
            self._gate = _Gate(ctypes.cast(self._thunk, ctypes.c_void_p).value, ctypes.addressof(flag))
            self._function, self._data = ctypes.c_void_p(gate.address), ctypes.c_void_p(ctypes.addressof(self._gate))
        self._hooks: list[int] = []

    def __len__(self) -> int:
        return len(self._hooks)

    def add(self, address: int) -> None:
        """Call back before the instruction there, in code that is translated from now on."""
        where = (address, address)
        self._hooks.append(add_hook(self._uc, unicorn_const.UC_HOOK_CODE, self._function, self._data, where))

    def forget(self) -> None:
        """Remove all; no translated code may be left. Unicorn asks for a translation of each address."""
        for hook in self._hooks:
            remove_hook(self._uc, hook)
        self._hooks.clear()


@cache
def _native_gate() -> Function | None:
    if not is_possible():
        return None
    unit = assemble(Path(__file__).with_name("gate.s"), symbols=offsets("gate", _Gate), name="gate.s")
    return Function(unit, "native_gate")
