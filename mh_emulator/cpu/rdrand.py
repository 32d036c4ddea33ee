"""RDRAND of parts that are broken: AMD parts have shipped that answer all ones, with CF set, after a resume.

And RDRAND and RDSEED of a guest whose run has to repeat exactly.

Source: Linux, arch/x86/kernel/cpu/amd.c (clear_rdrand_cpuid_bit) and arch/x86/kernel/cpu/rdrand.c; AMD64 APM volume 3,
RDRAND.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mh_emulator.cpu.registers import GPR_NAMES

_FORM = re.compile(rb"(\x66?)([\x40-\x4f]?)\x0f\xc7([\xf0-\xff])", re.DOTALL)
_REX_B, _REX_W = 1, 8


class Fault(NamedTuple):
    """What a broken generator gives: these values in turn, cut to the operand, with `carry` in CF."""

    values: tuple[int, ...]
    carry: bool


FAULTS: Mapping[str, Fault] = MappingProxyType({
    "stuck": Fault(((1 << 64) - 1,), carry=True),
    "repeats": Fault((0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344, 0xA409_3822_299F_31D0), carry=True),
    "zero": Fault((0,), carry=True),
    "fails": Fault((0,), carry=False),
})  # fmt: skip
"""By name; `fails` is how hardware says that it has nothing."""


class Drawn(NamedTuple):
    """A value, and CF."""

    value: int
    carry: bool


class Generator:
    """The generator of one platform; whoever owns the hardware may break it, and repair it, at any time."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self._given = 0

    def answers(self, *, seed: bool) -> bool:
        """Whether RDRAND, or RDSEED, has another value than the engine's own."""
        return not seed and self.fault is not None

    def next(self) -> Drawn:
        """What comes next, where it answers."""
        if self.fault is None:
            raise ValueError("this generator is sound: the engine has its values")
        self._given += 1
        return Drawn(self.fault.values[(self._given - 1) % len(self.fault.values)], self.fault.carry)


class Repeating(Generator):
    """A generator that is sound but for one thing: `seed` decides all its values."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._values = random.Random(seed)  # noqa: S311 - that it repeats is what it is for
        self.drawn = 0
        """How many of its values have been drawn."""

    def answers(self, *, seed: bool) -> bool:  # noqa: ARG002
        """Both are its own."""
        return True

    def next(self) -> Drawn:
        """What comes next."""
        if self.fault is not None:
            return super().next()
        self.drawn += 1
        return Drawn(self._values.getrandbits(64), carry=True)


class Destination(NamedTuple):
    """An RDRAND or RDSEED of `length` bytes into `size` bytes of a register."""

    register: str
    size: int
    length: int


def decode(code: bytes) -> Destination | None:
    """The RDRAND or RDSEED at the start of `code`, if there is one."""
    found = _FORM.match(code)
    if found is None:
        return None
    rex = found[2][0] if found[2] else 0
    register = found[3][0] & 7 | (8 if rex & _REX_B else 0)
    size = 8 if rex & _REX_W else 2 if found[1] else 4
    return Destination(GPR_NAMES[register], size, found.end())
