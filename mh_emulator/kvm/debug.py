"""Debug access to a guest's memory.

Source: Linux, arch/x86/kvm/svm/sev.c (sev_dbg_crypt).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm.context import SevContext
from mh_emulator.kvm.watched import watched


class DebugCommands(SevContext):
    """Both commands are allowed on a mirror."""

    @watched("KVM_SEV_DBG_DECRYPT")
    def sev_dbg_decrypt(self, source: tuple[UserMemory, int], target: tuple[UserMemory, int], size: int) -> None:
        """KVM_SEV_DBG_DECRYPT between (memory, offset) pairs."""
        self._debug("KVM_SEV_DBG_DECRYPT", self._psp.dbg_decrypt, source, target, size)

    @watched("KVM_SEV_DBG_ENCRYPT")
    def sev_dbg_encrypt(self, source: tuple[UserMemory, int], target: tuple[UserMemory, int], size: int) -> None:
        """KVM_SEV_DBG_ENCRYPT between (memory, offset) pairs."""
        self._debug("KVM_SEV_DBG_ENCRYPT", self._psp.dbg_encrypt, source, target, size)

    def _debug(
        self,
        ioctl: str,
        command: Callable[[int, int, int, int], None],
        source: tuple[UserMemory, int],
        target: tuple[UserMemory, int],
        size: int,
    ) -> None:
        own = self._on_any(ioctl)
        self._pin(ioctl, *source, size)
        self._pin(ioctl, *target, size)
        done = 0
        while done < size:
            start, end = source[1] + done, target[1] + done
            length = min(size - done, PAGE_BYTES - start % PAGE_BYTES, PAGE_BYTES - end % PAGE_BYTES)
            self._firmware(ioctl, partial(command, own.handle, source[0].spa(start), target[0].spa(end), length))
            done += length
