"""Calls before the instructions at single addresses: many of them, and all forgotten at once.

For every instruction that it translates unicorn looks at every hook: 10,000 of them cost 190 us an instruction.
"""

from __future__ import annotations

from collections.abc import Callable

from unicorn import unicorn_const
from unicorn.unicorn_py3.unicorn import HOOK_CODE_CFUNC, uccallback

from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.hooks import add_hook, remove_hook


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
        self._hooks.append(add_hook(self._uc, unicorn_const.UC_HOOK_CODE, self._thunk, None, (address, address)))

    def forget(self) -> None:
        """Remove all; no translated code may be left. Unicorn asks for a translation of each address."""
        for hook in self._hooks:
            remove_hook(self._uc, hook)
        self._hooks.clear()
