"""The commands, and in which states the platform and a guest have to be.

Source: SEV API (AMD 55766), sections 4.3, 5.1.2 and 6.1.1; AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.h, sev_mcmd.c,
sev_plat.c, sev_guest.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


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


class Command(IntEnum):
    """Command identifiers; those of the API that a host of SEV and SEV-ES guests uses."""

    INIT = 0x001
    SHUTDOWN = 0x002
    PLATFORM_STATUS = 0x004
    PDH_CERT_EXPORT = 0x008
    PDH_GEN = 0x009
    DF_FLUSH = 0x00A
    DECOMMISSION = 0x020
    ACTIVATE = 0x021
    DEACTIVATE = 0x022
    GUEST_STATUS = 0x023
    COPY = 0x024
    LAUNCH_START = 0x030
    LAUNCH_UPDATE_DATA = 0x031
    LAUNCH_UPDATE_VMSA = 0x032
    LAUNCH_MEASURE = 0x033
    LAUNCH_SECRET = 0x034
    LAUNCH_FINISH = 0x035
    ATTESTATION = 0x036
    SEND_START = 0x040
    SEND_UPDATE_DATA = 0x041
    SEND_UPDATE_VMSA = 0x042
    SEND_FINISH = 0x043
    SEND_CANCEL = 0x044
    RECEIVE_START = 0x050
    RECEIVE_UPDATE_DATA = 0x051
    RECEIVE_UPDATE_VMSA = 0x052
    RECEIVE_FINISH = 0x053
    DBG_DECRYPT = 0x060
    DBG_ENCRYPT = 0x061


_C, _P, _G = Command, PlatformState, GuestState
_ANY_PLATFORM = frozenset(PlatformState)
_ANY_GUEST = frozenset(GuestState) - {GuestState.UNINIT}

# DF_FLUSH: the published firmware looks at no state, because SNP shares the command.
PLATFORM_STATES: Mapping[Command, frozenset[PlatformState]] = MappingProxyType(
    dict.fromkeys(Command, frozenset({_P.WORKING}))
    | dict.fromkeys((_C.SHUTDOWN, _C.PLATFORM_STATUS, _C.DF_FLUSH), _ANY_PLATFORM)
    | dict.fromkeys(
        (_C.PDH_CERT_EXPORT, _C.PDH_GEN, _C.GUEST_STATUS, _C.LAUNCH_START, _C.RECEIVE_START),
        frozenset({_P.INIT, _P.WORKING}),
    )
    | {_C.INIT: frozenset({_P.UNINIT})}
)
"""Platform states that a command accepts."""

# ACTIVATE refuses a SENT guest, but only after it has looked at the ASID.
GUEST_STATES: Mapping[Command, frozenset[GuestState]] = MappingProxyType(
    dict.fromkeys(Command, _ANY_GUEST)
    | dict.fromkeys((_C.LAUNCH_UPDATE_DATA, _C.LAUNCH_UPDATE_VMSA, _C.LAUNCH_MEASURE), frozenset({_G.LUPDATE}))
    | dict.fromkeys((_C.LAUNCH_SECRET, _C.LAUNCH_FINISH), frozenset({_G.LSECRET}))
    | {_C.ATTESTATION: frozenset({_G.LSECRET, _G.RUNNING, _G.SUPDATE, _G.SENT})}
    | {_C.SEND_START: frozenset({_G.RUNNING})}
    | dict.fromkeys((_C.SEND_UPDATE_DATA, _C.SEND_UPDATE_VMSA, _C.SEND_FINISH, _C.SEND_CANCEL), frozenset({_G.SUPDATE}))
    | dict.fromkeys((_C.RECEIVE_UPDATE_DATA, _C.RECEIVE_UPDATE_VMSA, _C.RECEIVE_FINISH), frozenset({_G.RUPDATE}))
)
"""Guest states that a command on a guest accepts."""

NEXT_STATE: Mapping[Command, GuestState] = MappingProxyType(
    {
        _C.LAUNCH_START: _G.LUPDATE,
        _C.LAUNCH_MEASURE: _G.LSECRET,
        _C.LAUNCH_FINISH: _G.RUNNING,
        _C.SEND_START: _G.SUPDATE,
        _C.SEND_FINISH: _G.SENT,
        _C.SEND_CANCEL: _G.RUNNING,
        _C.RECEIVE_START: _G.RUPDATE,
        _C.RECEIVE_FINISH: _G.RUNNING,
    }
)
"""Where a command takes the guest."""
