"""The commands of SNP that are modelled, and the states of the platform and of a guest.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.h, sev_guest.h, sev_guest.c (state_tbl_snp); Linux,
include/linux/psp-sev.h.
"""

from __future__ import annotations

from enum import IntEnum


class SnpState(IntEnum):
    """State of the platform."""

    UNINIT = 0
    INIT = 1


class SnpGuestState(IntEnum):
    """State of a guest."""

    INIT = 0
    LAUNCH = 1
    RUNNING = 2


class SnpCommand(IntEnum):
    """Command identifiers."""

    INIT = 0x081
    SHUTDOWN = 0x082
    PLATFORM_STATUS = 0x083
    DF_FLUSH = 0x084
    DECOMMISSION = 0x090
    ACTIVATE = 0x091
    GUEST_STATUS = 0x092
    GCTX_CREATE = 0x093
    GUEST_REQUEST = 0x094
    LAUNCH_START = 0x0A0
    LAUNCH_UPDATE = 0x0A1
    LAUNCH_FINISH = 0x0A2
    DBG_DECRYPT = 0x0B0
    DBG_ENCRYPT = 0x0B1
    SWAP_OUT = 0x0C0
    SWAP_IN = 0x0C1
    PAGE_MOVE = 0x0C2
    MD_INIT = 0x0C3
    PAGE_RECLAIM = 0x0C7
    PAGE_UNSMASH = 0x0C8
    CONFIG = 0x0C9
    DOWNLOAD_FIRMWARE_EX = 0x0CA
    COMMIT = 0x0CB
