"""TLB fills without Python: fill.s, mapped executable, which unicorn calls; what it does not answer comes to Python.

It looks at what Python looks at, flat arrays in this process's memory, so there is nothing to keep in step but the
state of the CPU and of the guest, which `refresh` notes before the engine starts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

from unicorn import unicorn_const
from unicorn.unicorn_py3.unicorn import HOOK_TLB_FILL_CFUNC, uccallback, uclib

from mh_builder.asm import assemble
from mh_builder.asm.native import Functions, is_possible, offsets
from mh_builder.paging import PAGE_SHIFT
from mh_emulator.cpu.engine import CONTROL_REGISTERS, Engine, TlbEntry
from mh_emulator.cpu.nested import GuestPhysical
from mh_emulator.dram.bus import Turn
from mh_emulator.dram.ranges import NativeRange, NativeRanges

Answer: TypeAlias = Callable[[object, int, int, TlbEntry, object], bool]
"""(unused, VA, access, entry, unused): whether the entry is filled."""

_FIELDS = (
    "slow",  # asked for all that is not answered here: HOOK_TLB_FILL_CFUNC
    "off",  # not 0: nothing is answered here
    "native",  # Turn.native
    "taken",  # Bus.taken
    "patience",  # how often it is looked whether that is over, before `slow` waits for it
    "read_registers",  # uc_reg_read_batch, and its arguments
    "numbers",
    "places",
    "control",  # where it puts them: CONTROL_REGISTERS
    "efer",  # without LMA: the guest may turn paging on and off without leaving
    "c_mask",
    "address_mask",
    "reserved_mask",
    "view",  # number of the guest's key
    "ranges",  # NativeRanges
    "base",  # SPA of the first byte of DRAM
    "host",  # where that byte is
    "views",  # Dram.views
    "executed",  # Dram.executed
    "cached",  # Tlb.cached
    "fetched",  # Fetched
    "answered",  # how many were answered here
)

_PATIENCE = 2000
"""Some 50 us, in which most are done who have the bus; Python would wait for the GIL as well."""

FETCHED = 1 << 12
"""Pages of instructions that are remembered: by the low bits of their number."""

_UNANSWERED = 2
"""Neither of the answers that unicorn takes."""
_ASK = ctypes.PYFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, *[ctypes.c_void_p] * 2)
"""As fill.s has it; without release of the GIL, for it takes a microsecond."""


class FillState(ctypes.Structure):
    """What fill.s works on; addresses are of this process."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _FIELDS)


_NO_PAGE = (1 << 64) - 1


class Fetched(ctypes.Structure):
    """A page of instructions, by the number of its VA, and its frame: looked at, cached, and so writable for nobody."""

    _fields_ = (("page", ctypes.c_uint64), ("frame", ctypes.c_uint64))


FETCHED_SYMBOLS = offsets("fetched", Fetched) | {
    "fetched.places": FETCHED,
    "fetched.shift": ctypes.sizeof(Fetched).bit_length() - 1,
}
"""For native code that looks there."""


@cache
def native_fill() -> Functions | None:
    """`native_fill` and `unanswered`, where this process can execute them; None where Python answers all."""
    if not is_possible():
        return None
    symbols = offsets("fill", FillState) | offsets("range", NativeRange) | offsets("ranges", NativeRanges)
    symbols |= {"sizeof.range": ctypes.sizeof(NativeRange), "fill.registers": len(CONTROL_REGISTERS)}
    symbols |= {f"control.{name}": ctypes.sizeof(ctypes.c_uint64) * n for n, name in enumerate(CONTROL_REGISTERS)}
    symbols |= {"UNANSWERED": _UNANSWERED} | FETCHED_SYMBOLS
    return Functions(assemble(Path(__file__).with_name("fill.s"), symbols=symbols, name="fill.s"))


class Fill:
    """One engine's answers for pages: those of fill.s, else of `slow`."""

    def __init__(self, engine: Engine, guest: GuestPhysical, turn: Turn, cached: bytearray, slow: Answer) -> None:
        self._engine = engine
        self._handle = engine.uc._uch  # noqa: SLF001
        self._guest = guest
        self._dram = dram = guest.dram
        numbers, places, control = engine.control_batch
        self.state = FillState(
            native=ctypes.addressof(turn.native),
            taken=ctypes.addressof(dram.bus.taken),
            patience=_PATIENCE,
            read_registers=ctypes.cast(uclib.uc_reg_read_batch, ctypes.c_void_p).value,
            numbers=numbers,
            places=places,
            control=control,
            ranges=ctypes.addressof(guest.ranges),
            base=dram.base_spa,
            host=dram.host_address,
            views=dram.views.buffer_info()[0],
            executed=dram.executed.buffer_info()[0],
            cached=ctypes.addressof(ctypes.c_char.from_buffer(cached)),
        )
        self._fetched = (Fetched * FETCHED)()
        self._places: dict[int, set[int]] = {}
        """Where in it a frame is, or has been."""
        self.state.fetched = ctypes.addressof(self._fetched)
        self.forget_fetched()
        self._held = FillState()
        """The same for who has the bus."""
        self._free = ctypes.c_uint64()
        self._functions = functions = native_fill()
        if functions is None:
            engine.uc.hook_add(unicorn_const.UC_HOOK_TLB_FILL, slow)
        else:
            self._ask = _ASK(functions.address("native_fill"))
            self._slow = uccallback(engine.uc, HOOK_TLB_FILL_CFUNC)(
                lambda uc, va, access, entry, data: slow(uc, va, access, entry.contents, data)
            )
            self.state.slow = ctypes.cast(self._slow, ctypes.c_void_p).value
            engine.hook_fill(functions.address("native_fill"), ctypes.addressof(self.state))

    def remember(self, va: int, frame: int) -> None:
        """The instructions of `frame` at `va` have been looked at, and stay as they are until `forget_fetched`."""
        number = va >> PAGE_SHIFT
        place = self._fetched[number % FETCHED]
        place.page, place.frame = number, frame
        self._places.setdefault(frame, set()).add(number % FETCHED)

    def fetched(self, va: int) -> int | None:
        """The frame of which instructions at `va` were fetched last, if that is known."""
        number = va >> PAGE_SHIFT
        place = self._fetched[number % FETCHED]
        frame: int = place.frame
        return frame if place.page == number else None

    def forget_fetched(self) -> None:
        """Have Python asked for all instructions again."""
        self._places.clear()
        ctypes.memset(self._fetched, 0xFF, ctypes.sizeof(self._fetched))

    def forget_frame(self, frame: int) -> None:
        """Have Python asked for those of one frame."""
        for number in self._places.pop(frame, ()):
            place = self._fetched[number]
            if place.frame == frame:
                place.page = _NO_PAGE

    def refresh(self, *, only_slow: bool) -> None:
        """Note how things are, before the engine starts; `only_slow` has Python answer everything.

        It answers everything for an SNP guest too, for here nobody asks the RMP, and while pages are to come.
        """
        state, geometry = self.state, self._guest.geometry
        state.off = only_slow or self._guest.rmp is not None or bool(self._guest.absent)
        state.efer = self._engine.efer
        state.c_mask, state.address_mask = geometry.c_mask, geometry.address_mask
        state.reserved_mask = geometry.reserved_mask
        state.view = self._dram.view_number(self._guest.key)
        if self._functions is not None:
            ctypes.memmove(ctypes.addressof(self._held), ctypes.addressof(state), ctypes.sizeof(state))
            self._held.taken = ctypes.addressof(self._free)
            self._held.slow = self._functions.address("unanswered")

    def answer(self, va: int, access: int, entry: TlbEntry) -> bool:
        """Fill `entry` as fill.s does, if it does; the caller has the bus, which was the reason to come to Python."""
        if self._functions is None:
            return False
        held, place = ctypes.addressof(self._held), ctypes.addressof(entry)  # type: ignore[arg-type]
        return bool(self._ask(self._handle, va, access, place, held) == 1)
