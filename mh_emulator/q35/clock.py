"""Virtual time: it goes on with what a guest asks its devices and while it sleeps, so a run repeats exactly."""

from __future__ import annotations

LOOK_NS, LOOK_NS_ES = 50_000, 1_000_000
"""What one access to a device takes, and one by #VC: more than in hardware, so that delays are short to run."""
TSC_HZ = 2_000_000_000

_SECOND = 1_000_000_000


class Clock:
    """Nanoseconds since the guest was reset."""

    def __init__(self, look_ns: int = LOOK_NS) -> None:
        self.now = 0
        self._look_ns = look_ns

    def look(self) -> None:
        """A device was asked."""
        self.now += self._look_ns

    def wait(self, until: int) -> None:
        """Nothing happens before then."""
        self.now = max(self.now, until)

    def ticks(self, hz: int) -> int:
        """How often a counter of that frequency has counted."""
        return self.now * hz // _SECOND
