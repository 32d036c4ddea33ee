"""The local APIC of the one vCPU: registers that keep what is written, its timer, and interrupts that it sends itself.

Of the others' interrupts it has none, for there are no other devices that interrupt. The priority of a task is not
looked at.

Source: AMD64 APM volume 2, sections 16.3 (registers), 16.4.1 (timer), 16.5 (inter-processor interrupts), 16.6
(priorities); the deadline is that of Linux, arch/x86/kvm/lapic.c (MSR_IA32_TSC_DEADLINE), a bit of CPUID 0000_0001.
"""

from __future__ import annotations

from typing import NamedTuple

from mh_emulator.q35.clock import TSC_HZ, Clock

GPAS = range(0xFEE0_0000, 0xFEE0_1000)
BASE_MSR = 0x1B
BASE = GPAS.start | 1 << 11 | 1 << 8
"""Enabled, and that of the boot processor."""
DEADLINE_MSR = 0x6E0
TIMER_HZ = 1_000_000_000
"""As KVM's: a nanosecond a count, before the divider."""

_ID, _VERSION, _EOI, _SPURIOUS, _COMMAND, _DESTINATION, _TIMER, _INITIAL, _CURRENT, _DIVIDE = (
    0x020, 0x030, 0x0B0, 0x0F0, 0x300, 0x310, 0x320, 0x380, 0x390, 0x3E0,
)  # fmt: skip
_IN_SERVICE, _REQUESTED = range(0x100, 0x180, 0x10), range(0x200, 0x280, 0x10)
_VERSION_VALUE = 0x0005_0014
_PENDING = 1 << 12
_MASKED, _MODE, _PERIODIC, _DEADLINE = 1 << 16, 3 << 17, 1 << 17, 2 << 17
_LVTS = range(0x320, 0x371, 0x10)
_DIVISORS = (2, 4, 8, 16, 32, 64, 128, 1)
_FIXED = 0
_TO_SELF, _TO_ALL = 1, 2
_SECOND = 1_000_000_000


_VECTORS = 256


class LocalApicState(NamedTuple):
    """Registers, the timer (when it began, when it expires), and vectors that wait or are in service."""

    kept: dict[int, int]
    since: int
    expires: int | None
    deadline: int
    requested: tuple[int, ...]
    in_service: tuple[int, ...]


class LocalApic:
    """Its page, and what waits in it for the vCPU."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept = {_SPURIOUS: 0xFF, **dict.fromkeys(_LVTS, _MASKED)}
        self._since = 0
        self._expires: int | None = None
        """When the timer does, in virtual nanoseconds."""
        self._deadline = 0
        self._requested: set[int] = set()
        self._in_service: set[int] = set()

    @property
    def state(self) -> LocalApicState:
        """What it keeps."""
        vectors = tuple(sorted(self._requested)), tuple(sorted(self._in_service))
        return LocalApicState(dict(self._kept), self._since, self._expires, self._deadline, *vectors)

    def restore(self, state: LocalApicState) -> None:
        """Keep that; `ValueError` where it has other registers or vectors."""
        missing = self._kept.keys() - state.kept.keys()
        if missing or any(register >= len(GPAS) for register in state.kept):
            raise ValueError(f"local APIC: registers {', '.join(f'{one:#x}' for one in sorted(state.kept)) or 'none'}")
        if max((*state.requested, *state.in_service), default=0) >= _VECTORS:
            raise ValueError(f"local APIC: vectors {state.requested}, in service {state.in_service}")
        self._kept, self._since, self._expires, self._deadline = dict(state.kept), *state[1:4]
        self._requested, self._in_service = set(state.requested), set(state.in_service)

    def read(self, gpa: int) -> int:
        """A register."""
        register = gpa - GPAS.start & ~0xF
        if register == _VERSION:
            return _VERSION_VALUE
        if register == _CURRENT:
            return self._current()
        for vectors, registers in ((self._in_service, _IN_SERVICE), (self._requested, _REQUESTED)):
            if register in registers:
                return _word(vectors, registers.index(register))
        kept = self._kept.get(register, 0)
        return kept & ~_PENDING if register == _COMMAND else kept

    def write(self, gpa: int, value: int) -> None:
        """The same; writing the initial count starts the timer."""
        register = gpa - GPAS.start & ~0xF
        if register == _EOI:
            self._in_service.discard(max(self._in_service, default=0))
            return
        if register not in (_ID, _VERSION, _CURRENT):
            self._kept[register] = value & 0xFFFF_FFFF
        if register == _INITIAL:
            self._since = self._clock.now
            self._expires = self._clock.now + value * self._divisor if value and self._mode != _DEADLINE else None
        elif register == _COMMAND:
            self._send(value)

    @property
    def deadline(self) -> int:
        """The MSR: of the time-stamp counter; 0 once it has come."""
        return self._deadline

    @deadline.setter
    def deadline(self, value: int) -> None:
        if self._mode == _DEADLINE:
            self._deadline = value
            self._expires = -(-value * _SECOND // TSC_HZ) if value else None

    def vector(self) -> int | None:
        """That of the interrupt which the vCPU has to be given, if there is one."""
        self._expire()
        vector = max(self._requested, default=None)
        is_lower = vector is not None and any(vector >> 4 <= served >> 4 for served in self._in_service)
        return None if is_lower else vector

    def acknowledge(self) -> None:
        """The vCPU has taken it."""
        vector = max(self._requested)
        self._requested.remove(vector)
        self._in_service.add(vector)

    @property
    def timer_vector(self) -> int:
        """That of the timer, masked or not."""
        return self._kept[_TIMER] & 0xFF

    @property
    def next_ns(self) -> int | None:
        """When the timer will interrupt, in virtual nanoseconds."""
        return None if self._kept[_TIMER] & _MASKED else self._expires

    @property
    def _mode(self) -> int:
        return self._kept[_TIMER] & _MODE

    def _expire(self) -> None:
        if self._expires is None or self._clock.now < self._expires:
            return
        if not self._kept[_TIMER] & _MASKED:
            self._requested.add(self.timer_vector)
        period = self._kept.get(_INITIAL, 0) * self._divisor if self._mode == _PERIODIC else 0
        missed = (self._clock.now - self._expires) // period if period else 0
        self._expires = self._expires + (missed + 1) * period if period else None
        self._deadline = 0

    def _send(self, command: int) -> None:
        """Only what goes to itself arrives."""
        shorthand, destination = command >> 18 & 3, self._kept.get(_DESTINATION, 0)
        if command >> 8 & 7 == _FIXED and (shorthand in (_TO_SELF, _TO_ALL) or (not shorthand and not destination)):
            self._requested.add(command & 0xFF)

    @property
    def _divisor(self) -> int:
        value = self._kept.get(_DIVIDE, 0)
        return _DIVISORS[value & 3 | value >> 1 & 4]

    def _current(self) -> int:
        initial = self._kept.get(_INITIAL, 0)
        counted = (self._clock.now - self._since) // self._divisor
        if self._mode == _PERIODIC and initial:
            return initial - counted % initial
        return max(0, initial - counted)


def _word(vectors: set[int], number: int) -> int:
    """A bit for each of 32 vectors."""
    return sum(1 << vector % 32 for vector in vectors if vector // 32 == number)


class DeadlineMsr:
    """The timer's deadline, as an MSR of KVM."""

    def __init__(self, apic: LocalApic) -> None:
        self._apic = apic

    def read(self) -> int:
        """RDMSR."""
        return self._apic.deadline

    def write(self, value: int) -> None:
        """WRMSR; nothing comes of it in another mode of the timer."""
        self._apic.deadline = value
