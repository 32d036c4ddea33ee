"""Virtual time: it goes on with what a guest asks its devices, and with nothing else, so a run repeats exactly."""

from __future__ import annotations

LOOK_NS = 50_000
"""What one access to a device takes: more than an exit to a process does, so that delays are short to run."""
TSC_HZ = 2_000_000_000

_SECOND = 1_000_000_000


class Clock:
    """Nanoseconds since the guest was reset."""

    def __init__(self) -> None:
        self.now = 0

    def look(self) -> None:
        """A device was asked."""
        self.now += LOOK_NS

    def ticks(self, hz: int) -> int:
        """How often a counter of that frequency has counted."""
        return self.now * hz // _SECOND
