"""What the owner of an SNP guest allows.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_guest.h, which refuses the bits from 21 on; Linux,
include/linux/psp-sev.h.
"""

from __future__ import annotations

from enum import IntFlag


class SnpPolicy(IntFlag):
    """Guest policy; bits 7:0 are the lowest ABI minor version, 15:8 the major."""

    SMT = 1 << 16
    MUST_BE_ONE = 1 << 17
    MIGRATE_MA = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20


RESERVED_POLICY = -1 << 21 & (1 << 64) - 1
DEFAULT_POLICY = SnpPolicy.SMT | SnpPolicy.MUST_BE_ONE
"""What QEMU and sev-snp-measure take unless they are told otherwise, 0x30000."""


def policy_version(policy: int) -> tuple[int, int]:
    """Return the lowest (major, minor) ABI version that `policy` accepts."""
    return policy >> 8 & 0xFF, policy & 0xFF
