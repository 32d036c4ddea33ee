"""Whether the devices of a board interrupt its guest, and how long it sleeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from mh_emulator.q35.clock import Clock
from mh_emulator.q35.console import Console
from mh_emulator.q35.lapic import LocalApic

QUIET_NS = 3 * 1_000_000_000
"""Virtual time for which a guest that sleeps and wakes prints nothing, before it is taken for idle."""


class Interrupts(Protocol):
    """As `mh_emulator.cpu.devices.Devices` has them."""

    def vector(self) -> int | None:
        """Which interrupt waits, if one does."""

    def acknowledge(self) -> None:
        """The vCPU has taken it."""

    def sleep(self) -> bool:
        """Until one waits."""


class Silent:
    """Nobody interrupts: the first HLT is the end of firmware."""

    def vector(self) -> None:
        """None waits."""

    def acknowledge(self) -> None:
        """There is nothing to take."""

    def sleep(self) -> bool:
        """None will come."""
        return False


class TimerState(NamedTuple):
    """How many bytes had been printed when it was last looked at, and since when."""

    heard: int
    since: int


class Timer:
    """The timer of `apic`, until `console` has been quiet for too long."""

    def __init__(self, apic: LocalApic, clock: Clock, console: Console) -> None:
        self._apic = apic
        self._clock = clock
        self._console = console
        self._heard = 0
        """Bytes printed when it was last looked at."""
        self._since = 0
        self.sleeps = True
        """Whether a HLT ends here; else it is the host's."""
        self.on_expiry: Callable[[], None] | None = None
        """Called where the vCPU takes the interrupt of this timer, before it is delivered."""
        self.vector = apic.vector

    @property
    def state(self) -> TimerState:
        """What it knows."""
        return TimerState(self._heard, self._since)

    def restore(self, state: TimerState) -> None:
        """Know that."""
        self._heard, self._since = state

    def acknowledge(self) -> None:
        """The vCPU has taken the interrupt that waits."""
        is_own = self._apic.vector() == self._apic.timer_vector
        self._apic.acknowledge()
        if is_own and self.on_expiry is not None:
            self.on_expiry()

    def sleep(self) -> bool:
        """Until the timer expires; False where it is not set, the guest is quiet for too long, or `sleeps` says so."""
        if not self.sleeps:
            return False
        if self._apic.vector() is not None:
            return True
        if self._console.printed != self._heard:
            self._heard, self._since = self._console.printed, self._clock.now
        expires = self._apic.next_ns
        if expires is None or expires - self._since > QUIET_NS:
            return False
        self._clock.wait(expires)
        return True
