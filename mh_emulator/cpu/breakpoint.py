"""A breakpoint of the host's: an address at which the guest leaves before it executes the instruction there."""

from __future__ import annotations

from mh_emulator.cpu.code_hooks import CodeHooks
from mh_emulator.cpu.engine import Engine


class Breakpoint:
    """That of `engine`, which has none yet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._address: int | None = None
        self._known: set[int] = set()
        self._hooks = CodeHooks(engine, self._before)
        self._is_reached = False

    def set(self, address: int | None) -> None:
        """Have it at that linear address alone, in code that is translated from now on; None: nowhere."""
        self._address = address
        if address is not None and address not in self._known:
            # None is taken away again: what is hooked costs a call, and a removal would ask for translations.
            self._known.add(address)
            self._hooks.add(address)

    def take(self) -> bool:
        """Whether the engine stands there, which is said once."""
        is_reached, self._is_reached = self._is_reached, False
        return is_reached

    def _before(self, address: int) -> None:
        if address == self._address:
            self._is_reached = True
            self._engine.uc.emu_stop()
