"""What a guest owner allows to be done with a guest.

Source: SEV API (AMD 55766), chapter 3.
"""

from __future__ import annotations

from enum import IntFlag


class Policy(IntFlag):
    """Guest policy; bits 23:16 are the lowest API major version, 31:24 the minor."""

    NODBG = 1 << 0
    NOKS = 1 << 1
    ES = 1 << 2
    NOSEND = 1 << 3
    DOMAIN = 1 << 4
    SEV = 1 << 5


RESERVED_POLICY = 0xFFC0


def policy_version(policy: int) -> tuple[int, int]:
    """Return the lowest (major, minor) API version that `policy` accepts."""
    return policy >> 16 & 0xFF, policy >> 24 & 0xFF


def policy_names(policy: int) -> str:
    """The bits by name, as in `NODBG|NOKS`; `0` for none."""
    names = [flag.name for flag in Policy if policy & flag and flag.name]
    return "|".join(names) or "0"
