"""A VM of type KVM_X86_SNP_VM: its launch, its private pages, and what KVM refuses.

Source: Linux, arch/x86/kvm/svm/sev.c (__sev_guest_init, snp_launch_start, snp_launch_update, sev_gmem_post_populate,
snp_launch_update_vmsa, snp_launch_finish, sev_gmem_prepare, sev_gmem_invalidate, snp_handle_guest_req,
sev_vm_copy_enc_context_from, sev_vm_destroy), virt/kvm/guest_memfd.c (kvm_gmem_populate), virt/kvm/kvm_main.c
(kvm_vm_ioctl_set_mem_attributes). Every slot has a guest_memfd; private pages have 4 KiB.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from mh_builder.firmware.snp import VMSA_GPA, PageType
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import CpuidResult
from mh_builder.save_area import SNP_ACTIVE
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm.asids import AsidPool
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.host_memory import HostMemory
from mh_emulator.kvm.machine import VirtualMachine
from mh_emulator.kvm.snp_vcpu import SnpVcpu
from mh_emulator.kvm.vmgexit import GHCB_VERSION_MAX
from mh_emulator.kvm.watched import watched
from mh_emulator.psp.snp.firmware import SnpFirmware
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart, LaunchUpdate
from mh_emulator.psp.snp.policy import SnpPolicy
from mh_emulator.psp.snp.requests import GuestRequest
from mh_emulator.psp.status import CommandError
from mh_emulator.psp.vmsa import TrustedRegion
from mh_emulator.rmp.instructions import NewState
from mh_emulator.rmp.table import Rmp

T = TypeVar("T")

POLICY_MASK = 0xFFFF | int(SnpPolicy.SMT | SnpPolicy.MUST_BE_ONE | SnpPolicy.DEBUG | SnpPolicy.SINGLE_SOCKET)
"""KVM_SNP_POLICY_MASK_VALID: MIGRATE_MA is not among them."""
_LAUNCHED = (PageType.NORMAL, PageType.ZERO, PageType.UNMEASURED, PageType.SECRETS, PageType.CPUID)
_SNP_LEAF, _SNP, _VMPLS_SHIFT, _VMPLS = 0x8000_001F, 1 << 4, 12, 4


class SnpVm(VirtualMachine):
    """One VM; its methods are the ioctls on its file descriptor and raise `KvmError`."""

    def __init__(  # noqa: PLR0917 - what a host has
        self, dram: Dram, rmp: Rmp, psp: SnpFirmware, host: HostMemory, asids: AsidPool, generator: Generator
    ) -> None:
        super().__init__(dram, generator)
        self.rmp = self.table = rmp
        self.geometry = self.part.geometry(encrypted=True)
        self.gctx: int | None = None
        """Of the guest's context; a mirror has none."""
        self.mirrored: SnpVm | None = None
        self._psp = psp
        self._host = host
        self._asids = asids
        self._asid = 0
        self._private: set[int] = set()
        """KVM_MEMORY_ATTRIBUTE_PRIVATE, by GPA of the page."""
        self._gmem: dict[int, int] = {}
        """GPA of a private page -> its SPA."""

    @property
    def encrypted(self) -> bool:
        """Always, from KVM_SEV_INIT2 on."""
        return bool(self._asid)

    @property
    def es(self) -> bool:
        """Always: registers are encrypted."""
        return self.encrypted

    @property
    def asid(self) -> int:
        """ASID, 0 before KVM_SEV_INIT2."""
        return self._asid

    @property
    def key(self) -> bytes | None:
        """Memory key behind the ASID; None before the launch has begun."""
        return self.dram.key(self._asid) if self.gctx is not None or self.mirrored else None

    @property
    def runnable(self) -> bool:
        """Whether a vCPU can enter the guest."""
        return self._psp.is_runnable(self._asid)

    @property
    def has_protected_state(self) -> bool:
        """Always: no ioctl shows registers once they are protected."""
        return True

    @property
    def checksums(self) -> TrustedRegion | None:
        """None: it is the RMP that protects VMSAs."""
        return None

    def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
        """What CPUID returns, without what depends on the CPU's state."""
        found = super().cpuid(leaf, subleaf)
        if leaf != _SNP_LEAF:
            return found
        return found._replace(eax=found.eax | _SNP, ebx=found.ebx | _VMPLS << _VMPLS_SHIFT)

    def vcpu(self, number: int) -> SnpVcpu | None:
        """The vCPU with that APIC ID, or None."""
        found = self._vcpus[number] if number < len(self._vcpus) else None
        return found if isinstance(found, SnpVcpu) else None

    def spa(self, gpa: int) -> int | None:
        """System physical address behind `gpa`; a private page is given to the guest with the first touch."""
        return self.private_spa(gpa) if gpa & -PAGE_BYTES in self._private else self.shared_spa(gpa)

    def is_private(self, gpa: int) -> bool:
        """Whether the page has KVM_MEMORY_ATTRIBUTE_PRIVATE."""
        return gpa & -PAGE_BYTES in self._private

    def private_spa(self, gpa: int) -> int | None:
        """The page of guest_memfd, which is Guest-Invalid unless it was the guest's before; None without a slot."""
        page = gpa & -PAGE_BYTES
        if not self._slots.covers(page):
            return None
        spa = self._gmem.get(page)
        if spa is None:
            spa = self._host.page()
            self._host.make_private(spa, NewState(assigned=True, gpa=page, asid=self._asid))
            self._gmem[page] = spa
        return spa + gpa - page

    @watched("KVM_SET_MEMORY_ATTRIBUTES")
    def set_memory_attributes(self, gpa: int, size: int, *, private: bool) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES: have pages of slots private, or shared; neither gives pages back."""
        if size <= 0 or (gpa | size) % PAGE_BYTES or gpa + size > 1 << self.part.physical_bits:
            raise KvmError(errno.EINVAL, "KVM_SET_MEMORY_ATTRIBUTES")
        if private:
            self._private.update(self._slots.pages(gpa, size))
        else:
            self._private -= {page for page in self._private if gpa <= page < gpa + size}
        self.flush_translations()

    def punch_hole(self, gpa: int, size: int) -> None:
        """FALLOC_FL_PUNCH_HOLE on the guest_memfd: take private pages from the guest."""
        for page in [page for page in self._gmem if gpa <= page < gpa + size]:
            self._release(self._gmem.pop(page))
        self.flush_translations()

    def remap(self, gpa: int, spa: int) -> None:
        """Have the nested tables lead from a private page to another one: no ioctl, but a hostile kernel can."""
        self._gmem[gpa] = spa
        self.flush_translations()

    @watched("KVM_CREATE_VCPU")
    def create_vcpu(self) -> SnpVcpu:
        """KVM_CREATE_VCPU."""
        vcpu = SnpVcpu(self)
        self._vcpus.append(vcpu)
        return vcpu

    @watched("KVM_SEV_INIT2")
    def sev_init2(self, flags: int = 0, vmsa_features: int = 0, ghcb_version: int = 0) -> None:
        """KVM_SEV_INIT2: give the VM an ASID; version 1 of the GHCB protocol is not for SNP."""
        ioctl = "KVM_SEV_INIT2"
        is_bad = flags or vmsa_features or ghcb_version not in (0, GHCB_VERSION_MAX)
        if is_bad or self._vcpus or self._asid:
            raise KvmError(errno.EINVAL, ioctl)
        self._asid = self._asids.take(ioctl, es=True)
        self.ghcb_version, self.vmsa_features = GHCB_VERSION_MAX, SNP_ACTIVE

    @watched("KVM_CAP_VM_COPY_ENC_CONTEXT_FROM")
    def copy_enc_context_from(self, other: SnpVm) -> None:
        """KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: it copies the ASID, but neither the context nor VMSA features."""
        if self is other or self._asid or not other.asid or other.mirrored or self._vcpus:
            raise KvmError(errno.EINVAL, "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM")
        self._asid, self.mirrored = other.asid, other

    @watched("KVM_SEV_SNP_LAUNCH_START")
    def snp_launch_start(self, policy: int, gosvw: bytes = bytes(16), flags: int = 0) -> None:
        """KVM_SEV_SNP_LAUNCH_START and the ACTIVATE it implies; neither MA_EN nor IMI_EN can be asked for."""
        ioctl = "KVM_SEV_SNP_LAUNCH_START"
        self._on_owner(ioctl, errno.ENOTTY)
        is_known = not int(policy) & ~POLICY_MASK and policy & SnpPolicy.MUST_BE_ONE
        if self.gctx is not None or flags or not is_known:
            raise KvmError(errno.EINVAL, ioctl)
        gctx = self._host.donate()
        self._firmware(ioctl, lambda: self._psp.gctx_create(gctx))
        try:
            self._firmware(ioctl, lambda: self._psp.launch_start(LaunchStart(gctx, policy, gosvw=gosvw)))
            self._firmware(ioctl, lambda: self._psp.activate(gctx, self._asid))
        except KvmError:
            self._psp.decommission(gctx)
            self._release(gctx)
            raise
        self.gctx = gctx

    @watched("KVM_SEV_SNP_LAUNCH_UPDATE")
    def snp_launch_update(  # noqa: PLR0917 - the fields of the structure
        self, gpa: int, memory: UserMemory, offset: int, size: int, kind: int = PageType.NORMAL, flags: int = 0
    ) -> None:
        """KVM_SEV_SNP_LAUNCH_UPDATE: copy from the process into private pages, measure and encrypt those.

        A page of the incoming image cannot be asked for, nor a VMSA. All that `kvm_gmem_populate` finds wrong is EIO.
        """
        ioctl = "KVM_SEV_SNP_LAUNCH_UPDATE"
        self._on_owner(ioctl, errno.EINVAL)
        gctx, imi = self._context(ioctl), self._is_of_image(ioctl, flags)
        if size <= 0 or (size | gpa) % PAGE_BYTES or kind not in _LAUNCHED or not self._slots.covers(gpa):
            raise KvmError(errno.EINVAL, ioctl)
        for done in range(0, size, PAGE_BYTES):
            page = gpa + done
            if not self.is_private(page) or page in self._gmem or offset + done + PAGE_BYTES > memory.size:
                raise KvmError(errno.EIO, ioctl)
            data = b"" if kind == PageType.ZERO else memory.read_raw(offset + done, PAGE_BYTES)
            spa = self._host.page(data)
            try:
                self._launch(ioctl, LaunchUpdate(gctx, spa, kind, imi=imi), page)
            except KvmError:
                self._host.free(spa)
                raise
            self._gmem[page] = spa

    @watched("KVM_SEV_SNP_LAUNCH_FINISH")
    def snp_launch_finish(self, host_data: bytes = bytes(32), flags: int = 0) -> None:
        """KVM_SEV_SNP_LAUNCH_FINISH: launch the VMSAs of all vCPUs, and let the guest run."""
        ioctl = "KVM_SEV_SNP_LAUNCH_FINISH"
        self._on_owner(ioctl, errno.ENOTTY)
        gctx, imi = self._context(ioctl), self._is_of_image(ioctl, flags)
        for vcpu in self._vcpus:
            if isinstance(vcpu, SnpVcpu):
                self._launch(ioctl, LaunchUpdate(gctx, vcpu.sync_vmsa(ioctl), PageType.VMSA, imi=imi), VMSA_GPA)
                vcpu.protected = True
        self._firmware(ioctl, lambda: self._psp.launch_finish(LaunchFinish(gctx, host_data=host_data)))

    def request(self, request: bytes) -> tuple[int, bytes]:
        """SNP_GUEST_REQUEST, whatever the message is; the firmware's status, and the page of the answer."""
        gctx = self._context("KVM_RUN")
        message, answer = self._host.page(request), self._host.donate()
        status = 0
        try:
            self._psp.guest_request(GuestRequest(gctx, message, answer))
        except CommandError as error:
            status = error.status
        page = self.dram.read_raw(answer, PAGE_BYTES)
        self._release(answer)
        self._host.free(message)
        return status, page

    def close(self) -> None:
        """Close the file descriptor: take the pages back, and forget the guest.

        Where the firmware has no such context any more, KVM gives the ASID up for lost.
        """
        for vcpu in self._vcpus:
            vcpu.close()
        vmsas = [vcpu.vmsa.spa(0) for vcpu in self._vcpus if isinstance(vcpu, SnpVcpu) and vcpu.protected]
        self._vcpus.clear()
        asid, gctx, is_mirror = self._asid, self.gctx, self.mirrored is not None
        self._asid, self.gctx, self.mirrored = 0, None, None
        for spa in [*vmsas, *self._gmem.values()]:
            self._host.make_shared(spa)
        self._gmem.clear()
        if is_mirror or not asid:
            return
        if gctx is not None and not self._decommission(gctx):
            return
        self._asids.give_back(asid)

    def _decommission(self, gctx: int) -> bool:
        """Whether there was a guest to forget."""
        try:
            self._psp.decommission(gctx)
        except CommandError:
            return False
        self._release(gctx)
        return True

    def refuse(self, ioctl: str) -> None:
        """An SEV or SEV-ES command of KVM_MEMORY_ENCRYPT_OP: EPERM on an SNP VM, EINVAL on a mirror of one."""
        raise KvmError(errno.EINVAL if self.mirrored else errno.EPERM, ioctl)

    def _is_of_image(self, ioctl: str, flags: int) -> bool:
        """Whether what is launched belongs to the incoming image: KVM has no flag for it, nor for anything else."""
        if flags:
            raise KvmError(errno.EINVAL, ioctl)
        return False

    def _on_owner(self, ioctl: str, without: int) -> None:
        if self.mirrored is not None:
            raise KvmError(errno.EINVAL, ioctl)
        if not self._asid:
            raise KvmError(without, ioctl)

    def _context(self, ioctl: str) -> int:
        if self.gctx is None:
            raise KvmError(errno.EINVAL, ioctl)
        return self.gctx

    def _launch(self, ioctl: str, update: LaunchUpdate, gpa: int) -> None:
        """Give one page to the launch; the host has it back where the firmware refuses."""
        new = NewState(assigned=True, gpa=gpa, immutable=True, asid=self._asid)
        self._host.make_private(update.page, new)
        try:
            self._firmware(ioctl, lambda: self._psp.launch_update(update))
        except KvmError:
            self._host.reclaim(update.page)
            raise

    def _release(self, spa: int) -> None:
        """Take a page back from the guest or from the firmware."""
        self._host.reclaim(spa)
        self._host.free(spa)

    def _firmware(self, ioctl: str, command: Callable[[], T]) -> T:
        try:
            return command()
        except CommandError as error:
            raise KvmError(errno.EIO, ioctl, error.status) from error
