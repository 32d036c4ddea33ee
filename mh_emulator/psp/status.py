"""Status codes of SEV firmware commands.

Source: Secure Encrypted Virtualization API (AMD 55766), section 4.4; from 0x19 on, which SNP commands return: Linux,
include/uapi/linux/psp-sev.h.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What a command returns."""

    SUCCESS = 0x00
    INVALID_PLATFORM_STATE = 0x01
    INVALID_GUEST_STATE = 0x02
    INVALID_CONFIG = 0x03
    INVALID_LENGTH = 0x04
    ALREADY_OWNED = 0x05
    INVALID_CERTIFICATE = 0x06
    POLICY_FAILURE = 0x07
    INACTIVE = 0x08
    INVALID_ADDRESS = 0x09
    BAD_SIGNATURE = 0x0A
    BAD_MEASUREMENT = 0x0B
    ASID_OWNED = 0x0C
    INVALID_ASID = 0x0D
    WBINVD_REQUIRED = 0x0E
    DF_FLUSH_REQUIRED = 0x0F
    INVALID_GUEST = 0x10
    INVALID_COMMAND = 0x11
    ACTIVE = 0x12
    HWERROR_PLATFORM = 0x13
    HWERROR_UNSAFE = 0x14
    UNSUPPORTED = 0x15
    INVALID_PARAM = 0x16
    RESOURCE_LIMIT = 0x17
    SECURE_DATA_INVALID = 0x18
    INVALID_PAGE_SIZE = 0x19
    INVALID_PAGE_STATE = 0x1A
    INVALID_MDATA_ENTRY = 0x1B
    INVALID_PAGE_OWNER = 0x1C
    AEAD_OFLOW = 0x1D
    BAD_SVN = 0x21
    INVALID_KEY = 0x27


class Refused(Exception):
    """A check that failed, inside of the firmware; `length` is what a buffer has to have."""

    def __init__(self, status: Status, length: int = 0) -> None:
        super().__init__(status, length)
        self.status = status
        self.length = length


class CommandError(Exception):
    """A command that did not succeed; `length` is what a buffer has to have, where the firmware says that, else 0."""

    def __init__(self, command: str, status: Status, length: int = 0) -> None:
        super().__init__(f"{command}: {status.name} ({status:#04x})")
        self.command = command
        self.status = status
        self.length = length


def require(condition: object, status: Status) -> None:
    """Refuse with `status` unless `condition` holds."""
    if not condition:
        raise Refused(status)
