"""States of the platform and of guests, and which command is allowed in which.

Source: SEV API (AMD 55766), sections 5.1.2 and 6.1.1; AMD-ASPFW (SEV firmware 1.55.25), sev_plat.c, sev_guest.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag
from types import MappingProxyType

from mh_emulator.psp.session import Channel


class PlatformState(IntEnum):
    """PSTATE."""

    UNINIT = 0
    INIT = 1
    WORKING = 2


class GuestState(IntEnum):
    """GSTATE."""

    UNINIT = 0
    LUPDATE = 1
    LSECRET = 2
    RUNNING = 3
    SUPDATE = 4
    RUPDATE = 5
    SENT = 6


class Command(Enum):
    """Commands by their name in the API."""

    INIT = "INIT"
    SHUTDOWN = "SHUTDOWN"
    DF_FLUSH = "DF_FLUSH"
    DECOMMISSION = "DECOMMISSION"
    ACTIVATE = "ACTIVATE"
    DEACTIVATE = "DEACTIVATE"
    GUEST_STATUS = "GUEST_STATUS"
    COPY = "COPY"
    LAUNCH_START = "LAUNCH_START"
    LAUNCH_UPDATE_DATA = "LAUNCH_UPDATE_DATA"
    LAUNCH_UPDATE_VMSA = "LAUNCH_UPDATE_VMSA"
    LAUNCH_MEASURE = "LAUNCH_MEASURE"
    LAUNCH_SECRET = "LAUNCH_SECRET"  # noqa: S105
    LAUNCH_FINISH = "LAUNCH_FINISH"
    DBG_DECRYPT = "DBG_DECRYPT"
    DBG_ENCRYPT = "DBG_ENCRYPT"


_ANY_GUEST = frozenset(GuestState) - {GuestState.UNINIT}

ALLOWED: Mapping[Command, frozenset[GuestState]] = MappingProxyType(
    {
        Command.ACTIVATE: _ANY_GUEST - {GuestState.SENT},
        Command.DEACTIVATE: _ANY_GUEST,
        Command.DECOMMISSION: _ANY_GUEST,
        Command.LAUNCH_UPDATE_DATA: frozenset({GuestState.LUPDATE}),
        Command.LAUNCH_UPDATE_VMSA: frozenset({GuestState.LUPDATE}),
        Command.LAUNCH_MEASURE: frozenset({GuestState.LUPDATE}),
        Command.LAUNCH_SECRET: frozenset({GuestState.LSECRET}),
        Command.LAUNCH_FINISH: frozenset({GuestState.LSECRET}),
        Command.COPY: _ANY_GUEST,
        Command.DBG_DECRYPT: _ANY_GUEST,
        Command.DBG_ENCRYPT: _ANY_GUEST,
    }
)
"""Guest states that a command accepts."""


class Policy(IntFlag):
    """Guest policy, SEV API chapter 3; bits 23:16 are the lowest API major version, 31:24 the minor."""

    NODBG = 1 << 0
    NOKS = 1 << 1
    ES = 1 << 2
    NOSEND = 1 << 3
    DOMAIN = 1 << 4
    SEV = 1 << 5


RESERVED_POLICY = 0xFFC0
API_MAJOR, API_MINOR, BUILD = 1, 55, 25
"""Of AMD's published Genoa firmware."""


def policy_version(policy: int) -> tuple[int, int]:
    """Return the lowest (major, minor) API version that `policy` accepts."""
    return policy >> 16 & 0xFF, policy >> 24 & 0xFF


@dataclass(slots=True)
class GuestContext:
    """What the firmware knows of one guest."""

    handle: int
    policy: int
    key_seed: bytes = field(repr=False)
    """The VEK: the memory key is derived from nothing else."""
    channel: Channel = field(repr=False)
    state: GuestState = GuestState.LUPDATE
    asid: int = 0
    """0 while not activated."""
    vmsas: list[int] = field(default_factory=list)
    """Addresses of the checksums of its VMSAs."""

    @property
    def es(self) -> bool:
        """Whether its registers are encrypted."""
        return bool(self.policy & Policy.ES)
