"""What a host has seen of a guest, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mh_emulator.q35.clock import Clock


@dataclass(frozen=True, slots=True)
class Milestone:
    """Something that the host has seen of the guest."""

    what: str
    cpu_seconds: float
    """Of this process, since the launch began."""
    virtual_ms: float
    """Since RESET, as the guest's clocks have it."""


class Progress:
    """The milestones of one boot, which begins now; `on_milestone` is told of each as it comes."""

    def __init__(self, on_milestone: Callable[[Milestone], None]) -> None:
        self._on_milestone = on_milestone
        self._began = time.process_time()
        self.clock: Clock | None = None
        """The guest's, once there is one."""
        self.milestones: list[Milestone] = []

    def reach(self, what: str) -> None:
        """Note one."""
        now = 0 if self.clock is None else self.clock.now
        milestone = Milestone(what, round(self.cpu_seconds, 2), now / 1e6)
        self.milestones.append(milestone)
        self._on_milestone(milestone)

    def reach_use(self, device: str) -> None:
        """Note that a device is used."""
        self.reach(f"first use of {device}")

    @property
    def cpu_seconds(self) -> float:
        """What this process has taken since then."""
        return time.process_time() - self._began
