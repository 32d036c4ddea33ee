"""What makes a VM an SEV guest, and what all commands on it have in common."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mh_emulator.cpu.rdrand import Generator
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.machine import VirtualMachine
from mh_emulator.psp.firmware import Firmware
from mh_emulator.psp.status import CommandError

T = TypeVar("T")

FIRMWARE_BLOB_MAX = 16 << 10
"""Linux's SEV_FW_BLOB_MAX_SIZE, in bytes."""


@dataclass(slots=True)
class Encryption:
    """A mirror has the ASID, the handle and the kind of its owner."""

    asid: int
    es: bool
    handle: int = 0


class SevContext(VirtualMachine):
    """The encryption of one VM; the methods of its subclasses are commands of KVM_MEMORY_ENCRYPT_OP."""

    def __init__(self, dram: Dram, psp: Firmware, generator: Generator) -> None:
        super().__init__(dram, generator)
        self._psp = psp
        self._encryption: Encryption | None = None
        self._is_mirror = False

    @property
    def encrypted(self) -> bool:
        """Whether this is an SEV guest or a mirror of one."""
        return self._encryption is not None

    @property
    def es(self) -> bool:
        """Whether registers are encrypted as well."""
        return self._encryption is not None and self._encryption.es

    @property
    def asid(self) -> int:
        """ASID, 0 without SEV."""
        return self._encryption.asid if self._encryption else 0

    @property
    def handle(self) -> int:
        """The firmware's handle, 0 before the launch."""
        return self._encryption.handle if self._encryption else 0

    def _on_any(self, ioctl: str) -> Encryption:
        """The encryption, for a command that a mirror may give too."""
        if self._encryption is None:
            raise KvmError(errno.ENOTTY, ioctl)
        return self._encryption

    def _on_owner(self, ioctl: str) -> Encryption:
        """The encryption, for a command that is not in `is_cmd_allowed_from_mirror`."""
        # sev_mem_enc_ioctl() looks there before everything else.
        if self._is_mirror:
            raise KvmError(errno.EINVAL, ioctl)
        return self._on_any(ioctl)

    def _pin(self, ioctl: str, memory: UserMemory, offset: int, size: int) -> None:
        """sev_pin_memory(): user addresses, in a slot or not. EINVAL for nothing, ENOMEM for what is not mapped."""
        if size <= 0:
            raise KvmError(errno.EINVAL, ioctl)
        if offset < 0 or offset + size > memory.size:
            raise KvmError(errno.ENOMEM, ioctl)

    def _firmware(self, ioctl: str, command: Callable[[], T]) -> T:
        try:
            return command()
        except CommandError as error:
            raise KvmError(errno.EIO, ioctl, error.status) from error


def check_blob(ioctl: str, blob: bytes) -> None:
    """psp_copy_user_blob(): EINVAL for none, and for more than 16 KiB."""
    if not 0 < len(blob) <= FIRMWARE_BLOB_MAX:
        raise KvmError(errno.EINVAL, ioctl)
