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

Where more goes: a further reason for which an access is not let through, such as a fault of the RMP, is an exception of
`Mmu.translate` and one more `Missed.reason`. A further instruction that stops is a member of `Trap` with its opcode in
`traps.py` and its case in `Instructions`. Another mode of the CPU changes what `Mode` and `deliver` know, and no stop.
Only what is none of these is a class here, a place in the order, and a case of `Core._handle`: mypy finds the case that
is missing.

A `kick` and the end of a limit of instructions are no stops: nothing has happened in the guest, so there is nothing to
handle, and `Core.run` sees both itself.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def first(stops: Sequence[Stop]) -> Stop | None:
    """Which of `stops`, in the order in which they were noted, is handled; None without any."""
    return min(reversed(stops), key=_rank, default=None)


def _rank(stop: Stop) -> int:
    return _RANKS.index(type(stop))
