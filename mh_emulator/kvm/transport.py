"""Guests that leave and arrive through the secure processor.

Source: Linux, arch/x86/kvm/svm/sev.c (sev_send_*, sev_receive_*, sev_mem_enc_ioctl).
"""

from __future__ import annotations

import errno
from typing import NoReturn

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm.context import check_blob
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.launch import LaunchCommands
from mh_emulator.kvm.watched import watched
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.session import Session
from mh_emulator.psp.transport import Departure, Receiver


class TransportCommands(LaunchCommands):
    """Memory is named by (memory, offset), at most one page of it in a command; slots do not matter."""

    @watched("KVM_SEV_SEND_START")
    def sev_send_start(self, receiver: Receiver) -> Departure:
        """KVM_SEV_SEND_START: all three sets of certificates must be there, whether the policy needs them or not."""
        ioctl = "KVM_SEV_SEND_START"
        own = self._on_owner(ioctl)
        for blob in (receiver.platform.pdh, receiver.platform.chain, receiver.amd):
            check_blob(ioctl, blob)
        return self._firmware(ioctl, lambda: self._psp.send_start(own.handle, receiver))

    @watched("KVM_SEV_SEND_UPDATE_DATA")
    def sev_send_update_data(self, memory: UserMemory, offset: int, size: int) -> Packet:
        """KVM_SEV_SEND_UPDATE_DATA."""
        ioctl = "KVM_SEV_SEND_UPDATE_DATA"
        own = self._on_owner(ioctl)
        spa = self._pin_page(ioctl, memory, offset, size)
        return self._firmware(ioctl, lambda: self._psp.send_update_data(own.handle, spa, size))

    @watched("KVM_SEV_SEND_UPDATE_VMSA")
    def sev_send_update_vmsa(self) -> NoReturn:
        """KVM_SEV_SEND_UPDATE_VMSA: has a number, and no code."""
        raise KvmError(errno.EINVAL, "KVM_SEV_SEND_UPDATE_VMSA")

    @watched("KVM_SEV_SEND_FINISH")
    def sev_send_finish(self) -> None:
        """KVM_SEV_SEND_FINISH."""
        ioctl = "KVM_SEV_SEND_FINISH"
        own = self._on_owner(ioctl)
        self._firmware(ioctl, lambda: self._psp.send_finish(own.handle))

    @watched("KVM_SEV_SEND_CANCEL")
    def sev_send_cancel(self) -> None:
        """KVM_SEV_SEND_CANCEL."""
        ioctl = "KVM_SEV_SEND_CANCEL"
        own = self._on_owner(ioctl)
        self._firmware(ioctl, lambda: self._psp.send_cancel(own.handle))

    @watched("KVM_SEV_RECEIVE_START")
    def sev_receive_start(self, policy: int, session: Session, handle: int = 0) -> int:
        """KVM_SEV_RECEIVE_START and the ACTIVATE it implies; `handle` goes to the firmware as it is."""
        ioctl = "KVM_SEV_RECEIVE_START"
        own = self._on_owner(ioctl)
        check_blob(ioctl, session.certificate)
        check_blob(ioctl, session.blob)
        new = self._firmware(ioctl, lambda: self._psp.receive_start(policy, session, handle))
        self._bind(ioctl, new)
        own.handle = new
        return new

    @watched("KVM_SEV_RECEIVE_UPDATE_DATA")
    def sev_receive_update_data(self, packet: Packet, memory: UserMemory, offset: int, size: int | None = None) -> None:
        """KVM_SEV_RECEIVE_UPDATE_DATA into `size` bytes, without it as many as `packet` has."""
        ioctl = "KVM_SEV_RECEIVE_UPDATE_DATA"
        size = len(packet.data) if size is None else size
        if not self.encrypted:
            # Linux has EINVAL here where all other commands have ENOTTY.
            raise KvmError(errno.EINVAL, ioctl)
        own = self._on_owner(ioctl)
        check_blob(ioctl, packet.header)
        check_blob(ioctl, packet.data)
        spa = self._pin_page(ioctl, memory, offset, size)
        self._firmware(ioctl, lambda: self._psp.receive_update_data(own.handle, packet, spa, size))

    @watched("KVM_SEV_RECEIVE_UPDATE_VMSA")
    def sev_receive_update_vmsa(self) -> NoReturn:
        """KVM_SEV_RECEIVE_UPDATE_VMSA: has a number, and no code."""
        raise KvmError(errno.EINVAL, "KVM_SEV_RECEIVE_UPDATE_VMSA")

    @watched("KVM_SEV_RECEIVE_FINISH")
    def sev_receive_finish(self) -> None:
        """KVM_SEV_RECEIVE_FINISH."""
        ioctl = "KVM_SEV_RECEIVE_FINISH"
        own = self._on_owner(ioctl)
        self._firmware(ioctl, lambda: self._psp.receive_finish(own.handle))

    def _pin_page(self, ioctl: str, memory: UserMemory, offset: int, size: int) -> int:
        if offset % PAGE_BYTES + size > PAGE_BYTES:
            raise KvmError(errno.EINVAL, ioctl)
        self._pin(ioctl, memory, offset, size)
        return memory.spa(offset)
