"""What the firmware knows of guests.

Source: AMD-ASPFW, sev_guest.h, sev_guest.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mh_emulator.psp.command import GuestState
from mh_emulator.psp.digest import LaunchDigest
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.session import Channel
from mh_emulator.psp.status import Refused, Status, require

GUESTS_MAX = 1024


@dataclass(slots=True)
class GuestContext:
    """One guest."""

    policy: int
    key_seed: bytes = field(repr=False)
    """The VEK: the memory key is derived from nothing else."""
    channel: Channel = field(repr=False)
    state: GuestState
    handle: int = 0
    asid: int = 0
    """0 while not activated."""
    measuring: LaunchDigest = field(default_factory=LaunchDigest, repr=False)
    """What was launched so far."""
    launch_digest: bytes = bytes(32)
    """After LAUNCH_MEASURE."""
    vmsas: list[int] = field(default_factory=list)
    """Addresses of the checksums of its VMSAs."""

    @property
    def es(self) -> bool:
        """Whether its registers are encrypted."""
        return bool(self.policy & Policy.ES)


class Guests:
    """All guests by handle."""

    def __init__(self) -> None:
        self._by_handle: dict[int, GuestContext] = {}

    def __len__(self) -> int:
        return len(self._by_handle)

    def __iter__(self) -> Iterator[GuestContext]:
        return iter(self._by_handle.values())

    def find(self, handle: int) -> GuestContext | None:
        """The guest, or None."""
        return self._by_handle.get(handle)

    def get(self, handle: int) -> GuestContext:
        """The guest; refused where there is none."""
        guest = self._by_handle.get(handle)
        if guest is None:
            raise Refused(Status.INVALID_GUEST)
        return guest

    def free_handle(self) -> int:
        """The lowest free handle; refused where there is none."""
        require(len(self._by_handle) < GUESTS_MAX, Status.RESOURCE_LIMIT)
        return next(number for number in range(1, GUESTS_MAX + 1) if number not in self._by_handle)

    def add(self, guest: GuestContext) -> None:
        """Keep a guest under its handle."""
        self._by_handle[guest.handle] = guest

    def remove(self, guest: GuestContext) -> None:
        """Forget a guest."""
        del self._by_handle[guest.handle]

    def clear(self) -> None:
        """Forget all."""
        self._by_handle.clear()
