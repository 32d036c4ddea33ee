"""A vCPU of an SNP guest: which page is its VMSA, what the RMP's faults come to, and what only SNP guests ask for.

Source: Linux, arch/x86/kvm/svm/sev.c (sev_handle_vmgexit, sev_es_validate_vmgexit, sev_snp_ap_creation,
sev_snp_init_protected_guest_state, snp_handle_guest_req, sev_handle_rmp_fault), arch/x86/kvm/svm/svm.c
(npf_interception). Not modelled: certificates of extended guest requests.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Protocol

from mh_builder.paging import LEAF_BYTES, PAGE_BYTES
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.cpu.snp_vmrun import SnpVmsa
from mh_emulator.dram.process import pieces
from mh_emulator.kvm import page_state, vmgexit
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.es_vcpu import EsMachine, EsVcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.ghcb import Ghcb, Malformed, MalformedError, Response
from mh_emulator.kvm.hypercalls import MAP_GPA_RANGE
from mh_emulator.kvm.page_state import Change, ChangeList
from mh_emulator.kvm.vcpu import Answer
from mh_emulator.rmp.fault import ErrorCode
from mh_emulator.rmp.table import Rmp

_MASK32 = 0xFFFF_FFFF
_GPA_SHIFT = 12


class SnpMsr(IntEnum):
    """GHCBInfo of requests that only SNP guests may make."""

    PREFERRED_GPA_REQUEST = 0x010
    PREFERRED_GPA_RESPONSE = 0x011
    REGISTER_GPA_REQUEST = 0x012
    REGISTER_GPA_RESPONSE = 0x013
    PAGE_STATE_REQUEST = 0x014


class SnpEvent(IntEnum):
    """Exit codes of requests that only SNP guests may make."""

    PAGE_STATE_CHANGE = 0x8000_0010
    GUEST_REQUEST = 0x8000_0011
    EXTENDED_GUEST_REQUEST = 0x8000_0012
    AP_CREATION = 0x8000_0013


class ApRequest(IntEnum):
    """The lower half of SW_EXITINFO1 of AP_CREATION, whose bits 19:16 are the VMPL."""

    CREATE_ON_INIT = 0
    CREATE = 1
    DESTROY = 2


_NO_GPA = (1 << 52) - 1


class SnpMachine(EsMachine, Protocol):
    """The VM around the vCPU."""

    @property
    def table(self) -> Rmp:
        """The machine's RMP."""

    def is_private(self, gpa: int) -> bool:
        """Whether the host has made the page private."""

    def private_spa(self, gpa: int) -> int | None:
        """The page of guest_memfd, which is the guest's from then on; None without a slot."""

    def request(self, request: bytes) -> tuple[int, bytes]:
        """Hand a message to the secure processor; its status, and the page of the answer."""

    def vcpu(self, number: int) -> SnpVcpu | None:
        """The vCPU with that APIC ID."""


class SnpVcpu(EsVcpu):
    """A vCPU whose VMSA KVM makes at the launch, and the guest replaces."""

    def __init__(self, vm: SnpMachine) -> None:
        super().__init__(vm)
        self._snp_vm = vm
        self.vmsa_spa: int | None = self.vmsa.spa(0)
        """Of the page that VMRUN is given; None while it may not run."""
        self._vmsa_gpa: int | None = None
        """The guest's wish for the next INIT."""
        self._waits_for_init = False
        self._ghcb_gpa: int | None = None

    def init(self) -> None:
        """INIT: take the VMSA that the guest has asked for, or none."""
        if not self._waits_for_init:
            return
        self._waits_for_init = False
        gpa, self._vmsa_gpa = self._vmsa_gpa, None
        self.vmsa_spa = None if gpa is None else self._snp_vm.private_spa(gpa)
        self._core.held = None

    def replace_vmsa(self, gpa: int | None) -> None:
        """Wait for INIT to go on with the VMSA at `gpa`, or with none."""
        self._vmsa_gpa, self._waits_for_init = gpa, True

    def _enter(self, max_instructions: int | None) -> Intercept:
        if self.vmsa_spa is None:
            raise KvmError(errno.EINVAL, "KVM_RUN")
        vm = self._snp_vm
        page = SnpVmsa(vm.dram, vm.table, self.vmsa_spa, vm.asid)
        return page.run(self._core, max_instructions, self._take_event())

    def _handle(self, stop: Intercept) -> Exit | None:
        if stop.code is Code.NPF and stop.error:
            return self._nested_fault(stop.gpa, ErrorCode(stop.error))
        return super()._handle(stop)

    def _nested_fault(self, gpa: int, error: ErrorCode) -> Exit:
        """Ask the host, whose attributes may be out of date; where they are not, nothing that KVM does will help."""
        private = bool(error & ErrorCode.ENCRYPTED)
        page = gpa & -PAGE_BYTES
        if private is not self._snp_vm.is_private(page):
            return Exit(Reason.MEMORY_FAULT, gpa=page, size=PAGE_BYTES, private=private)
        return Exit(Reason.RMP_FAULT, gpa=gpa, value=error, private=private)

    def _msr_protocol(self, value: int) -> Exit | None:
        info, msrs = vmgexit.info_of(value), self._core.msrs
        if info == SnpMsr.PREFERRED_GPA_REQUEST:
            msrs.ghcb = _NO_GPA << _GPA_SHIFT | SnpMsr.PREFERRED_GPA_RESPONSE
        elif info == SnpMsr.REGISTER_GPA_REQUEST:
            self._ghcb_gpa = value & -PAGE_BYTES
            msrs.ghcb = self._ghcb_gpa | SnpMsr.REGISTER_GPA_RESPONSE
        elif info == SnpMsr.PAGE_STATE_REQUEST:
            return self._change_one(value)
        else:
            return super()._msr_protocol(value)
        return None

    def _change_one(self, value: int) -> Exit | None:
        exit_ = page_state.msr_request(value) if self._host_changes_pages else None
        if exit_ is None:
            self._core.msrs.ghcb = page_state.PSC_RESPONSE_ERROR
            return None

        def complete(answer: Answer) -> None:
            self._core.msrs.ghcb = page_state.PSC_RESPONSE_ERROR if answer.value else page_state.PSC_RESPONSE

        self._pending = complete
        return exit_

    @property
    def _host_changes_pages(self) -> bool:
        return bool(self._vm.hypercall_exits >> MAP_GPA_RANGE & 1)

    def _page_protocol(self, ghcb: Ghcb) -> Exit | None:
        if ghcb.gpa != self._ghcb_gpa:
            raise KvmError(errno.EINVAL, "KVM_RUN")
        if not ghcb.usage and ghcb.read("exit_code") in tuple(SnpEvent):
            try:
                return self._snp_event(SnpEvent(ghcb.read("exit_code")), ghcb)
            except MalformedError as error:
                ghcb.respond(Response.MALFORMED_INPUT, error.reason)
                return None
        return super()._page_protocol(ghcb)

    def _snp_event(self, event: SnpEvent, ghcb: Ghcb) -> Exit | None:
        if not ghcb.has("exit_code", "exit_info_1", "exit_info_2"):
            raise MalformedError(Malformed.MISSING_INPUT)
        if event is SnpEvent.PAGE_STATE_CHANGE:
            return self._change_many(ghcb)
        if event is SnpEvent.AP_CREATION:
            self._create_ap(ghcb)
        else:
            self._guest_request(ghcb)
        return None

    def _change_many(self, ghcb: Ghcb) -> Exit | None:
        if not ghcb.has("scratch"):
            raise MalformedError(Malformed.MISSING_INPUT)
        start = ghcb.scratch(page_state.BUFFER_BYTES)
        if not self._host_changes_pages:
            ghcb.respond(Response.NO_ACTION, page_state.ERROR_GENERIC)
            return None
        changes = ChangeList(
            lambda: self._read_shared(start, page_state.BUFFER_BYTES),
            lambda offset, data: self._write_shared(start + offset, data),
        )
        return self._next_change(ghcb, changes)

    def _next_change(self, ghcb: Ghcb, changes: ChangeList) -> Exit | None:
        """Ask the host for one range after the other."""
        change = changes.next_change()
        if not isinstance(change, Change):
            ghcb.respond(Response.NO_ACTION, change)
            return None
        self._pending = lambda answer: self._changed(ghcb, changes, change, answer)
        return change.exit

    def _changed(self, ghcb: Ghcb, changes: ChangeList, change: Change, answer: Answer) -> Exit | None:
        if answer.value:
            ghcb.respond(Response.NO_ACTION, page_state.ERROR_GENERIC)
            return None
        changes.complete(change)
        return self._next_change(ghcb, changes)

    def _guest_request(self, ghcb: Ghcb) -> None:
        request, response = ghcb.read("exit_info_1"), ghcb.read("exit_info_2")
        if (request | response) % PAGE_BYTES or request == response:
            raise MalformedError(Malformed.MISSING_INPUT)
        status, answer = self._snp_vm.request(self._read_shared(request, PAGE_BYTES))
        self._write_shared(response, answer)
        ghcb.respond(Response.NO_ACTION, status)

    def _create_ap(self, ghcb: Ghcb) -> None:
        info, gpa = ghcb.read("exit_info_1"), ghcb.read("exit_info_2")
        request = info & _MASK32
        if request != ApRequest.DESTROY and not ghcb.has("rax"):
            raise MalformedError(Malformed.MISSING_INPUT)
        target = self._snp_vm.vcpu(info >> 32)
        if target is None or request not in tuple(ApRequest):
            raise MalformedError(Malformed.INVALID_INPUT)
        if request == ApRequest.DESTROY:
            target.replace_vmsa(None)
        else:
            is_page = not gpa % PAGE_BYTES and not gpa >> self._vm.part.physical_bits
            # At 2 MiB: an erratum, by which the CPU takes a large page of the host for one of the guest.
            if ghcb.read("rax") != self._snp_vm.vmsa_features or not is_page or not gpa % LEAF_BYTES[2]:
                raise MalformedError(Malformed.INVALID_INPUT)
            target.replace_vmsa(gpa)
        if request != ApRequest.CREATE_ON_INIT:
            target.init()
        ghcb.done()

    def _read_shared(self, gpa: int, size: int) -> bytes:
        return b"".join(self._vm.dram.read_raw(self._shared(start), length) for start, length in pieces(gpa, size))

    def _write_shared(self, gpa: int, data: bytes) -> None:
        for start, length in pieces(gpa, len(data)):
            self._vm.dram.write_raw(self._shared(start), data[start - gpa : start - gpa + length])

    def _shared(self, gpa: int) -> int:
        spa = self._snp_vm.shared_spa(gpa)
        if spa is None:
            raise KvmError(errno.EIO, "KVM_RUN")
        return spa
