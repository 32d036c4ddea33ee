"""How an ioctl fails."""

from __future__ import annotations

import errno

from mh_emulator.psp.status import Status


class KvmError(OSError):
    """A failed ioctl: `errno`, the name of the ioctl, and the firmware's `status` where that is the cause."""

    def __init__(self, number: int, ioctl: str, status: Status | None = None) -> None:
        cause = "" if status is None else f" (firmware: {status.name})"
        super().__init__(number, f"{ioctl}: {errno.errorcode[number]}{cause}")
        self.ioctl = ioctl
        self.status = status

    def __str__(self) -> str:
        """Name errno and the ioctl."""
        return str(self.strerror)
