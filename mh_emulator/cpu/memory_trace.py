"""Who is told of every data access of an engine."""

from __future__ import annotations

from collections.abc import Callable

from unicorn import unicorn_const

from mh_emulator.cpu.engine import CODELESS, Engine

MemoryTrace = Callable[[int, int, bool], None]
"""(system physical address, bytes, whether it is a write)."""


class TraceHook:
    """The one hook of `engine` for that; a change is for code that is translated from then on."""

    def __init__(self, engine: Engine) -> None:
        self._uc = engine.uc
        self._hook: int | None = None

    def tell(self, callback: MemoryTrace | None) -> None:
        """Call `callback` for each, or nobody with None."""
        if self._hook is not None:
            self._uc.hook_del(self._hook)
            self._hook = None
        if callback is None:
            return
        is_write = unicorn_const.UC_MEM_WRITE

        def report(_uc: object, access: int, address: int, size: int, _value: int, _data: object) -> None:
            callback(address & ~CODELESS, size, access == is_write)

        self._hook = self._uc.hook_add(unicorn_const.UC_HOOK_MEM_READ | unicorn_const.UC_HOOK_MEM_WRITE, report)
