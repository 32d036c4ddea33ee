"""Blocks of instructions, as unicorn tells of them when it has translated them.

Most have nothing that anybody watches, and the same code runs on many a CPU: which these are is known to all of a
process, by their bytes, and blocks.s takes note of them without Python.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from unicorn import unicorn_const
from unicorn.unicorn_py3.unicorn import HOOK_EDGE_GEN_CFUNC, uc_tb, uccallback

from mh_builder.asm import assemble
from mh_builder.asm.native import Function, is_possible, offsets
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.hooks import EVERYWHERE, Foreign, add_hook
from mh_emulator.cpu.native import FETCHED_SYMBOLS, Fill
from mh_emulator.dram.bus import Turn
from mh_emulator.dram.dram import Dram

_TOLD_FIELDS = (
    "slow",  # told of all that is not known here: HOOK_EDGE_GEN_CFUNC
    "told",  # not 0 when there was a block
    "native",  # Turn.native
    "taken",  # Bus.taken
    "fetched",  # Fetched
    "host",  # where the first byte of DRAM is
    "known",  # Known
    "answered",  # how many were known
)
_PLACES_BITS = 14
_TRIES = 8
_FACTOR = 0x9E37_79B9_7F4A_7C15
"""2**64 divided by the golden ratio: neighbours go far from each other."""
_ADDRESS_BITS = 64


OnBlock: TypeAlias = Callable[[int, int, int], None]
"""Called with a block's address, how many bytes it has, and how many instructions."""


class Block(NamedTuple):
    """What unicorn has translated in one go: its address, which RIP and the segment's base make, and its bytes."""

    address: int
    code: bytes
    instructions: int
    """How many unicorn finds in it."""


class _Told(ctypes.Structure):
    """What blocks.s works on; addresses are of this process."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _TOLD_FIELDS)


class _Known(ctypes.Structure):
    """A block: where its bytes are in this process; `size` is 0 where there is none."""

    _fields_ = (("code", ctypes.c_uint64), ("instructions", ctypes.c_uint32), ("size", ctypes.c_uint32))


class Known:
    """Blocks that have nothing of one kind; engines look here at any time, so what is here stays."""

    def __init__(self) -> None:
        self._places = (_Known * ((1 << _PLACES_BITS) + _TRIES))()
        self._codes: list[bytes] = []
        self._lock = threading.Lock()
        self.address = ctypes.addressof(self._places)
        """In this process."""

    def add(self, block: Block) -> None:
        """Have it known, unless there is no room for it."""
        first = (block.address * _FACTOR) % (1 << _ADDRESS_BITS) >> (_ADDRESS_BITS - _PLACES_BITS)
        # Another machine's CPUs, which may run in other threads, have another bus.
        with self._lock:
            place = next((place for place in self._places[first : first + _TRIES] if not place.size), None)
            if place is not None:
                self._codes.append(block.code)
                place.code = ctypes.cast(ctypes.c_char_p(block.code), ctypes.c_void_p).value
                place.instructions = block.instructions
                # Last: an engine that finds a size finds the rest, for x86 keeps stores in order.
                place.size = len(block.code)


class Told:
    """Calls for the blocks of one engine, but those that are `known`."""

    def __init__(  # noqa: PLR0917 - what it stands between
        self, engine: Engine, turn: Turn, dram: Dram, fill: Fill, known: Known, slow: OnBlock
    ) -> None:
        self._known = known
        self._state = _Told(
            native=ctypes.addressof(turn.native),
            taken=ctypes.addressof(dram.bus.taken),
            fetched=fill.state.fetched,
            host=dram.host_address,
            known=known.address,
        )

        def tell(_uc: object, block: Foreign, _before: object, _data: object) -> None:
            self._state.told = 1
            slow(block.contents.pc, block.contents.size, block.contents.icount)

        self._slow = uccallback(engine.uc, HOOK_EDGE_GEN_CFUNC)(tell)
        self._state.slow = ctypes.cast(self._slow, ctypes.c_void_p).value
        native, function, data = _native_block(), self._slow, None
        if native is not None:
            function, data = ctypes.c_void_p(native.address), ctypes.c_void_p(ctypes.addressof(self._state))
        add_hook(engine.uc, unicorn_const.UC_HOOK_EDGE_GENERATED, function, data, EVERYWHERE)

    def use(self, known: Known) -> None:
        """Take these for known, from now on."""
        self._known, self._state.known = known, known.address

    @property
    def any(self) -> bool:
        """Whether unicorn has told of a block: not of those before the first one has come to its end."""
        return bool(self._state.told)

    @property
    def answered(self) -> int:
        """How many were known to blocks.s."""
        return int(self._state.answered)


@cache
def _native_block() -> Function | None:
    if not is_possible():
        return None
    symbols = offsets("told", _Told) | offsets("known", _Known) | offsets("tb", uc_tb) | FETCHED_SYMBOLS
    symbols |= {"known.tries": _TRIES, "known.factor": _FACTOR, "known.shift": _ADDRESS_BITS - _PLACES_BITS}
    symbols |= {"sizeof.known": ctypes.sizeof(_Known), "known.entry_shift": ctypes.sizeof(_Known).bit_length() - 1}
    return Function(assemble(Path(__file__).with_name("blocks.s"), symbols=symbols, name="blocks.s"), "native_block")
