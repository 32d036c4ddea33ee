"""A vCPU of an SEV-ES guest: its registers go into a VMSA at the launch, and KVM sees only what the guest tells it.

Source: Linux, arch/x86/kvm/svm/sev.c (sev_es_sync_vmsa, __sev_launch_update_vmsa, sev_handle_vmgexit),
arch/x86/kvm/x86.c (kvm_arch_vcpu_ioctl_get_regs).
"""

from __future__ import annotations

import errno
from typing import Protocol

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.cpu.registers import Registers
from mh_emulator.cpu.vmrun import Vmsa
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm import string_io, vmgexit
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.ghcb import Ghcb, Malformed, MalformedError, Response
from mh_emulator.kvm.vcpu import Answer, Machine, Vcpu
from mh_emulator.kvm.vmgexit import Event, Msr
from mh_emulator.kvm.watched import watched
from mh_emulator.psp.vmsa import TrustedRegion

_NOTHING_TO_DO = frozenset({
    Code.INVD, Code.WBINVD, Code.MONITOR, Code.MWAIT, Code.READ_DR7, Code.WRITE_DR7, Event.NMI_COMPLETE,
})  # fmt: skip
_HYPERVISOR_FEATURES_SHIFT = 12


class EsMachine(Machine, Protocol):
    """The VM around the vCPU."""

    ghcb_version: int
    vmsa_features: int
    ap_jump_table: int

    @property
    def asid(self) -> int:
        """ASID."""

    @property
    def has_protected_state(self) -> bool:
        """Whether the VM was created as an SEV-ES one."""

    def shared_spa(self, gpa: int) -> int | None:
        """Where KVM finds what the guest shares at `gpa`."""

    @property
    def checksums(self) -> TrustedRegion | None:
        """Where the CPU keeps the checksums of VMSAs."""


class EsVcpu(Vcpu):
    """A vCPU whose registers are the host's until LAUNCH_UPDATE_VMSA, and out of reach afterwards."""

    def __init__(self, vm: EsMachine) -> None:
        super().__init__(vm)
        self._es_vm = vm
        self.vmsa = UserMemory(vm.dram, PAGE_BYTES)
        """The page, which is the kernel's: in Linux no process can map it, and no slot holds it."""
        self.protected = False
        """Whether the VMSA has been measured and encrypted."""
        self._registers: Registers | None = None
        self._core.msrs.ghcb = vmgexit.sev_info(vm.ghcb_version, vm.part.c_bit)

    @watched("KVM_GET_REGS")
    def get_registers(self) -> Registers:
        """KVM_GET_REGS: EINVAL once registers are protected; an older kind of VM shows what the host set last."""
        self._refuse_if_protected("KVM_GET_REGS")
        return self._core.get_registers() if self._registers is None else self._registers

    @watched("KVM_SET_REGS")
    def set_registers(self, registers: Registers) -> None:
        """KVM_SET_REGS: EINVAL once registers are protected; an older kind of VM takes them, without effect."""
        self._refuse_if_protected("KVM_SET_REGS")
        if not self.protected:
            self._core.set_registers(registers)
        self._registers = registers

    @watched("KVM_SET_GUEST_DEBUG")
    def set_guest_debug(self, breakpoint_: int | None) -> None:
        """KVM_SET_GUEST_DEBUG: EINVAL once registers are protected, of an older kind of VM too."""
        if self.protected:
            raise KvmError(errno.EINVAL, "KVM_SET_GUEST_DEBUG")
        self._core.set_breakpoint(breakpoint_)

    @property
    def ghcb(self) -> int:
        """MSR C001_0130, which is in the VMCB: a host that moves the guest takes it from there, and puts it there."""
        return self._core.msrs.ghcb

    @ghcb.setter
    def ghcb(self, value: int) -> None:
        self._core.msrs.ghcb = value

    @property
    def levels(self) -> int:
        """Levels of the guest's page tables: KVM is told of each write to CR4, and of nothing that is in the tables."""
        return self._core.levels

    def sync_vmsa(self, ioctl: str) -> int:
        """Write the registers into the page, as plaintext; return its system physical address. EINVAL if protected."""
        if self.protected:
            raise KvmError(errno.EINVAL, ioctl)
        vm = self._es_vm
        page = vmsa.make(self.get_registers(), fpu=vm.has_protected_state, features=vm.vmsa_features)
        self.vmsa.write_raw(0, page)
        return self.vmsa.spa(0)

    def _refuse_if_protected(self, ioctl: str) -> None:
        if self.protected and self._es_vm.has_protected_state:
            raise KvmError(errno.EINVAL, ioctl)

    def _enter(self, max_instructions: int | None) -> Intercept:
        page = Vmsa(self._vm.dram, self.vmsa.spa(0), self._es_vm.asid, self._es_vm.checksums)
        event = self._take_event()
        return page.run(self._core, 0 if self._kicked else max_instructions, event)

    def _handle(self, stop: Intercept) -> Exit | None:
        if stop.code is not Code.VMGEXIT:
            return super()._handle(stop)
        value = self._core.msrs.ghcb
        if vmgexit.info_of(value):
            return self._msr_protocol(value)
        spa = self._es_vm.shared_spa(value) if value else None
        # Without a page KVM goes right back to the guest.
        return None if spa is None else self._page_protocol(Ghcb(self._vm.dram, spa, value))

    def _msr_protocol(self, value: int) -> Exit | None:
        info = vmgexit.info_of(value)
        msrs = self._core.msrs
        if info == Msr.SEV_INFO_REQUEST:
            msrs.ghcb = vmgexit.sev_info(self._es_vm.ghcb_version, self._es_vm.part.c_bit)
        elif info == Msr.CPUID_REQUEST:
            leaf, _ = vmgexit.cpuid_request(value)
            msrs.ghcb = vmgexit.cpuid_response(value, self._vm.cpuid(leaf, 0))
        elif info == Msr.AP_RESET_HOLD_REQUEST:
            msrs.ghcb = Msr.AP_RESET_HOLD_RESPONSE
            return Exit(Reason.AP_RESET_HOLD)
        elif info == Msr.FEATURES_REQUEST:
            msrs.ghcb = vmgexit.HYPERVISOR_FEATURES << _HYPERVISOR_FEATURES_SHIFT | Msr.FEATURES_RESPONSE
        elif info == Msr.TERMINATION_REQUEST:
            return Exit(Reason.SYSTEM_EVENT, value=value)
        return None

    def _page_protocol(self, ghcb: Ghcb) -> Exit | None:
        try:
            code = vmgexit.check(ghcb)
            if vmgexit.is_string(code, ghcb):
                self._string(ghcb, vmgexit.as_intercept(code, ghcb))
                return None
            if code in (Event.MMIO_READ, Event.MMIO_WRITE):
                return self._mmio(ghcb, is_write=code == Event.MMIO_WRITE)
            return self._event(code, ghcb)
        except MalformedError as error:
            ghcb.respond(Response.MALFORMED_INPUT, error.reason)
            return None

    def _string(self, ghcb: Ghcb, request: Intercept) -> None:
        if self._vm.devices is None:
            raise MalformedError(Malformed.INVALID_EVENT)
        string_io.serve(ghcb, request, self._vm.dram, self._vm.spa, self._vm.devices)

    def _event(self, code: int, ghcb: Ghcb) -> Exit | None:
        if code in (Code.MSR, Code.VMMCALL, Code.IOIO):
            return self._emulate(ghcb, vmgexit.as_intercept(code, ghcb))
        if code == Event.UNSUPPORTED:
            raise KvmError(errno.EINVAL, "KVM_RUN")
        if code == Event.TERM_REQUEST:
            return Exit(Reason.SYSTEM_EVENT, value=self._core.msrs.ghcb)
        if code == Event.AP_HLT_LOOP:
            ghcb.done()
            return Exit(Reason.AP_RESET_HOLD)
        return self._answer_event(code, ghcb)

    def _answer_event(self, code: int, ghcb: Ghcb) -> Exit | None:
        if code == Code.CPUID:
            result = self._vm.cpuid(ghcb.read("rax") & 0xFFFF_FFFF, ghcb.read("rcx") & 0xFFFF_FFFF)
            for name, value in zip(("rax", "rbx", "rcx", "rdx"), result, strict=True):
                ghcb.write(name, value)
            ghcb.done()
        elif code == Event.AP_JUMP_TABLE:
            self._ap_jump_table(ghcb)
        elif code == Event.HV_FEATURES:
            ghcb.respond(Response.NO_ACTION, vmgexit.HYPERVISOR_FEATURES)
        elif code == Code.RDPMC:
            ghcb.fault()
        elif code in _NOTHING_TO_DO:
            ghcb.done()
        else:
            return Exit(Reason.INTERNAL_ERROR)
        return None

    def _ap_jump_table(self, ghcb: Ghcb) -> None:
        what = ghcb.read("exit_info_1")
        if what == 0:
            self._es_vm.ap_jump_table = ghcb.read("exit_info_2")
            ghcb.done()
        elif what == 1:
            ghcb.respond(Response.NO_ACTION, self._es_vm.ap_jump_table)
        else:
            raise MalformedError(Malformed.INVALID_INPUT)

    def _mmio(self, ghcb: Ghcb, *, is_write: bool) -> Exit | None:
        gpa, size = ghcb.read("exit_info_1"), ghcb.read("exit_info_2")
        spa = self._es_vm.shared_spa(ghcb.scratch(size))
        if spa is None:
            raise KvmError(errno.EFAULT, "KVM_RUN")
        dram = self._vm.dram

        def complete(answer: Answer) -> None:
            if not is_write:
                dram.write_raw(spa, (answer.value & (1 << 8 * size) - 1).to_bytes(size, "little"))
            ghcb.done()

        value = int.from_bytes(dram.read_raw(spa, size), "little") if is_write else 0
        devices = self._vm.devices
        if devices is not None:
            if is_write:
                devices.write_memory(gpa, size, value)
            complete(Answer(0 if is_write else devices.read_memory(gpa, size)))
            return None
        self._pending = complete
        return Exit(Reason.MMIO, gpa=gpa, size=size, value=value, is_write=is_write)
