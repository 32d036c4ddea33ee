"""What stopped the engine before its instruction was done.

An instruction that stops the engine is not always the last that it looks at, so two stops can be noted before it stands
still. They are handled by rank, and only the first is; the others come again when their instruction does:

1. `Raised`: the instruction has begun, and the engine's state is that of its exception. Nothing else may move RIP
   before.
2. `Invalid`: the engine does not know the instruction. It cannot have touched memory.
3. `Trapped`: an instruction that leaves the guest, or that the model executes itself. It is noted before the engine has
   executed anything of it, so a miss noted too is of an instruction behind it.
4. `Missed`: a memory access that the TLB did not let through: a fault, no slot, stale code, no DRAM left.

Of two of one kind the later is handled.

A further kind of stop, such as a fault of the RMP, is a class here, a place in the order and a case of `Core._handle`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mh_emulator.cpu.tlb import Missed
from mh_emulator.cpu.traps import Trapped


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception or software interrupt of that vector, which the engine keeps until it is taken."""

    vector: int


@dataclass(frozen=True, slots=True)
class Invalid:
    """An instruction that the engine does not know."""


Stop = Raised | Invalid | Trapped | Missed

_RANKS: tuple[type[Stop], ...] = (Raised, Invalid, Trapped, Missed)


def first(noted: Stop | None, other: Stop | None) -> Stop | None:
    """Which of two stops is handled; `other` is the later."""
    if noted is None or other is None:
        return noted or other
    return other if _RANKS.index(type(other)) <= _RANKS.index(type(noted)) else noted
