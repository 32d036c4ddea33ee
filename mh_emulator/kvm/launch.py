"""The launch of a guest.

Source: Linux, arch/x86/kvm/svm/sev.c (sev_launch_*, sev_guest_status).
"""

from __future__ import annotations

import errno
from functools import partial

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.process import UserMemory, pieces, stretches
from mh_emulator.kvm.context import SevContext, check_blob
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.es_vcpu import EsVcpu
from mh_emulator.kvm.watched import watched
from mh_emulator.psp.launch import Measurement
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.platform import GuestStatus
from mh_emulator.psp.session import Session


class LaunchCommands(SevContext):
    """Memory is named by (memory, offset) as a process names it by address; slots do not matter."""

    @watched("KVM_SEV_LAUNCH_START")
    def sev_launch_start(self, policy: int, session: Session | None = None, handle: int = 0) -> int:
        """KVM_SEV_LAUNCH_START and the ACTIVATE it implies; return the guest's handle."""
        ioctl = "KVM_SEV_LAUNCH_START"
        own = self._on_owner(ioctl)
        new = self._firmware(ioctl, lambda: self._psp.launch_start(policy, session, handle))
        self._bind(ioctl, new)
        own.handle = new
        return new

    @watched("KVM_SEV_LAUNCH_UPDATE_DATA")
    def sev_launch_update_data(self, memory: UserMemory, offset: int, size: int) -> None:
        """KVM_SEV_LAUNCH_UPDATE_DATA."""
        ioctl = "KVM_SEV_LAUNCH_UPDATE_DATA"
        own = self._on_owner(ioctl)
        self._pin(ioctl, memory, offset, size)
        for start, length in stretches(offset, size):
            if length < PAGE_BYTES:
                command = partial(self._psp.launch_update_data, own.handle, memory.spa(start), length)
            else:
                command = partial(self._psp.launch_update_pages, own.handle, memory.spas(start, length))
            self._firmware(ioctl, command)

    @watched("KVM_SEV_LAUNCH_UPDATE_VMSA")
    def sev_launch_update_vmsa(self) -> None:
        """KVM_SEV_LAUNCH_UPDATE_VMSA: measure and encrypt the registers of every vCPU of this VM; a mirror has its own.

        EINVAL for a vCPU that is protected already: a fix of 2026; Linux before encrypted the page twice.
        """
        ioctl = "KVM_SEV_LAUNCH_UPDATE_VMSA"
        own = self._on_any(ioctl)
        if not own.es:
            raise KvmError(errno.ENOTTY, ioctl)
        for vcpu in self._vcpus:
            if isinstance(vcpu, EsVcpu):
                spa = vcpu.sync_vmsa(ioctl)
                self._firmware(ioctl, partial(self._psp.launch_update_vmsa, own.handle, spa))
                vcpu.protected = True

    @watched("KVM_SEV_LAUNCH_MEASURE")
    def sev_launch_measure(self) -> Measurement:
        """KVM_SEV_LAUNCH_MEASURE."""
        ioctl = "KVM_SEV_LAUNCH_MEASURE"
        own = self._on_owner(ioctl)
        return self._firmware(ioctl, lambda: self._psp.launch_measure(own.handle))

    @watched("KVM_SEV_LAUNCH_SECRET")
    def sev_launch_secret(self, packet: Packet, memory: UserMemory, offset: int, size: int | None = None) -> None:
        """KVM_SEV_LAUNCH_SECRET into `size` bytes, without it as many as `packet` has; physically contiguous."""
        ioctl = "KVM_SEV_LAUNCH_SECRET"
        size = len(packet.data) if size is None else size
        own = self._on_owner(ioctl)
        self._pin(ioctl, memory, offset, size)
        spa = memory.spa(offset)
        if any(memory.spa(start) != spa + start - offset for start, _ in pieces(offset, size)):
            raise KvmError(errno.EINVAL, ioctl)
        check_blob(ioctl, packet.data)
        check_blob(ioctl, packet.header)
        self._firmware(ioctl, lambda: self._psp.launch_secret(own.handle, packet, spa, size))

    @watched("KVM_SEV_LAUNCH_FINISH")
    def sev_launch_finish(self) -> None:
        """KVM_SEV_LAUNCH_FINISH."""
        ioctl = "KVM_SEV_LAUNCH_FINISH"
        own = self._on_owner(ioctl)
        self._firmware(ioctl, lambda: self._psp.launch_finish(own.handle))

    @watched("KVM_SEV_GUEST_STATUS")
    def sev_guest_status(self) -> GuestStatus:
        """KVM_SEV_GUEST_STATUS; allowed on a mirror."""
        ioctl = "KVM_SEV_GUEST_STATUS"
        own = self._on_any(ioctl)
        return self._firmware(ioctl, lambda: self._psp.guest_status(own.handle))

    def _bind(self, ioctl: str, handle: int) -> None:
        """sev_bind_asid(): ACTIVATE a new guest, or forget it again."""
        try:
            self._firmware(ioctl, lambda: self._psp.activate(handle, self.asid))
        except KvmError:
            self._psp.decommission(handle)
            raise
