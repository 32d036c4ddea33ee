"""A VM: its slots, its vCPUs, its capabilities, and how it becomes an SEV guest or a mirror of one.

Source: Linux, arch/x86/kvm/svm/sev.c (__sev_guest_init, sev_guest_init2, sev_vm_copy_enc_context_from,
sev_mem_enc_register_region, sev_vm_destroy).
"""

from __future__ import annotations

import errno
from enum import IntEnum

from mh_emulator.cpu.rdrand import Generator
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm.asids import AsidPool
from mh_emulator.kvm.context import Encryption
from mh_emulator.kvm.debug import DebugCommands
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.es_vcpu import EsVcpu
from mh_emulator.kvm.transport import TransportCommands
from mh_emulator.kvm.vcpu import Vcpu
from mh_emulator.kvm.vmgexit import GHCB_VERSION_MAX, GHCB_VERSION_MIN
from mh_emulator.kvm.watched import watched
from mh_emulator.psp.firmware import Firmware
from mh_emulator.psp.vmsa import TrustedRegion


class VmType(IntEnum):
    """What KVM_CREATE_VM makes."""

    DEFAULT = 0
    SEV = 2
    SEV_ES = 3


class Vm(TransportCommands, DebugCommands):
    """One VM; its methods are the ioctls on its file descriptor and raise `KvmError`."""

    def __init__(
        self, dram: Dram, psp: Firmware, asids: AsidPool, generator: Generator, vm_type: VmType = VmType.DEFAULT
    ) -> None:
        super().__init__(dram, psp, generator)
        self._type = vm_type
        self._asids = asids
        self._regions: list[tuple[UserMemory, int, int]] = []
        self._owner: Vm | None = None
        self._references = 1

    @property
    def key(self) -> bytes | None:
        """Memory key behind the ASID, None without SEV."""
        return self.dram.key(self._encryption.asid) if self._encryption else None

    @property
    def runnable(self) -> bool:
        """Whether a vCPU can enter the guest."""
        return self._encryption is None or self._psp.is_runnable(self._encryption.asid)

    @property
    def has_protected_state(self) -> bool:
        """Whether this VM was created as an SEV-ES one; KVM_SEV_ES_INIT makes one that was not."""
        return self._type is VmType.SEV_ES

    @property
    def checksums(self) -> TrustedRegion | None:
        """Where the CPU keeps the checksums of VMSAs."""
        return self._psp.region

    @watched("KVM_CREATE_VCPU")
    def create_vcpu(self) -> Vcpu:
        """KVM_CREATE_VCPU."""
        vcpu = EsVcpu(self) if self.es else Vcpu(self)
        self._vcpus.append(vcpu)
        return vcpu

    @watched("KVM_SEV_INIT")
    def sev_init(self) -> None:
        """KVM_SEV_INIT: give a VM of the default type an ASID."""
        self._init_old("KVM_SEV_INIT", es=False)

    @watched("KVM_SEV_ES_INIT")
    def sev_es_init(self) -> None:
        """KVM_SEV_ES_INIT: as KVM_SEV_INIT, with encrypted registers."""
        self._init_old("KVM_SEV_ES_INIT", es=True)
        self.ghcb_version = GHCB_VERSION_MIN

    @watched("KVM_SEV_INIT2")
    def sev_init2(self, flags: int = 0, vmsa_features: int = 0, ghcb_version: int = 0) -> None:
        """KVM_SEV_INIT2: give a VM of an SEV type an ASID; without debug-swap there are no VMSA features."""
        ioctl = "KVM_SEV_INIT2"
        is_es = self._type is VmType.SEV_ES
        if self._type is VmType.DEFAULT or self._encryption is not None:
            raise KvmError(errno.EINVAL, ioctl)
        self._init(ioctl, es=is_es, bad=bool(flags or vmsa_features) or ghcb_version > GHCB_VERSION_MAX * is_es)
        self.ghcb_version = (ghcb_version or GHCB_VERSION_MAX) * is_es

    @watched("KVM_CAP_VM_COPY_ENC_CONTEXT_FROM")
    def copy_enc_context_from(self, other: Vm) -> None:
        """KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: become a mirror of `other`."""
        ioctl = "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM"
        source = other._encryption
        is_bad = self is other or self._encryption is not None or source is None or other._is_mirror
        if is_bad or self._vcpus or source is None:
            raise KvmError(errno.EINVAL, ioctl)
        # The handle is copied as it is now: a mirror made before LAUNCH_START never gets one.
        self._become(Encryption(source.asid, source.es, source.handle))
        self._owner, self._is_mirror = other, True
        other._references += 1

    @watched("KVM_MEMORY_ENCRYPT_REG_REGION")
    def memory_encrypt_reg_region(self, memory: UserMemory, offset: int, size: int) -> None:
        """KVM_MEMORY_ENCRYPT_REG_REGION: pin memory that may hold ciphertext."""
        ioctl = "KVM_MEMORY_ENCRYPT_REG_REGION"
        self._on_owner(ioctl)
        self._pin(ioctl, memory, offset, size)
        self._regions.append((memory, offset, size))

    @watched("KVM_MEMORY_ENCRYPT_UNREG_REGION")
    def memory_encrypt_unreg_region(self, memory: UserMemory, offset: int, size: int) -> None:
        """KVM_MEMORY_ENCRYPT_UNREG_REGION: the reverse, for exactly one range that was registered."""
        ioctl = "KVM_MEMORY_ENCRYPT_UNREG_REGION"
        self._on_owner(ioctl)
        if (memory, offset, size) not in self._regions:
            raise KvmError(errno.EINVAL, ioctl)
        self._regions.remove((memory, offset, size))

    def close(self) -> None:
        """Close the file descriptor; an owner lives on until its last mirror has gone."""
        self._put()

    def _init_old(self, ioctl: str, *, es: bool) -> None:
        # A mirror may not give this command; a VM of another type may not either.
        if self._is_mirror or self._type is not VmType.DEFAULT:
            raise KvmError(errno.EINVAL, ioctl)
        self._init(ioctl, es=es, bad=False)

    def _init(self, ioctl: str, *, es: bool, bad: bool) -> None:
        if self._vcpus or bad or self._encryption is not None:
            raise KvmError(errno.EINVAL, ioctl)
        self._become(Encryption(self._asids.take(ioctl, es=es), es))

    def _become(self, encryption: Encryption) -> None:
        self._encryption = encryption
        self.geometry = self.part.geometry(encrypted=True)

    def _put(self) -> None:
        self._references -= 1
        if self._references:
            return
        for vcpu in self._vcpus:
            vcpu.close()
        self._vcpus.clear()
        encryption, owner = self._encryption, self._owner
        self._encryption = self._owner = None
        if owner is not None:
            owner._put()  # noqa: SLF001
        elif encryption is not None:
            if encryption.handle:
                self._psp.deactivate(encryption.handle)
                self._psp.decommission(encryption.handle)
            self._asids.give_back(encryption.asid)
