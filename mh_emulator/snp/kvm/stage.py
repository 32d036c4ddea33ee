"""Where a case with vCPUs is played: one machine with KVM, and what came of every run and every ioctl."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.parts import Part
from mh_emulator.kvm import KvmError, SnpVcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.host_memory import HostFaultError
from mh_emulator.psp.status import CommandError
from mh_emulator.snp.kvm.guest import KvmGuest
from mh_emulator.snp.notes import Notes, Step
from mh_emulator.snp_platform import SnpPlatform

DRAM_BYTES = 8 * MIB
_INVALID = Step("VMRUN", (1 << 64) - 1, "VMEXIT_INVALID")
_EXCEPTIONS = {13: "#GP", 14: "#PF", 29: "#VC"}


class KvmStage(Notes):
    """One case on one part."""

    def __init__(self, part: Part) -> None:
        super().__init__(part)
        self.platform = SnpPlatform(part, DRAM_BYTES, 1)
        self.today: list[Step] = []
        """Steps before `past_kvm`."""

    def past_kvm(self) -> None:
        """What follows is done without KVM."""
        self.today, self.steps = self.steps, []

    def hiding(self) -> None:
        """Have a machine that hides ciphertext, in place of the one before."""
        self.platform = SnpPlatform(self.part, DRAM_BYTES, 1, hiding=True)

    def guest(self, code: str = "hlt", ap_code: str = "hlt", ap_vmpl: int = 1) -> KvmGuest:
        """A running guest."""
        return KvmGuest(self.platform, code, ap_code, ap_vmpl)

    def run(self, guest: KvmGuest, name: str, number: int = 0) -> Exit:
        """Run a vCPU, which does `name`; what it was told is a step."""
        stop = guest.run(number)
        self.note(_told(guest, name, number, stop))
        return stop

    def enter(self, vcpu: SnpVcpu) -> None:
        """VMRUN of a vCPU that is no guest's here; whether the CPU takes it is a step."""
        taken = vcpu.run(1).reason is not Reason.FAIL_ENTRY
        self.note(Step("VMRUN", 0, "SUCCESS") if taken else _INVALID)

    def try_(self, name: str, call: Callable[[], object]) -> bool:
        """Whether an ioctl, a command or a write of the host's kernel succeeds; what it was told is a step."""
        try:
            call()
        except KvmError as error:
            self.note(_failed(name, error))
            return False
        except CommandError as error:
            self.note(Step(name, error.status, error.status.name))
            return False
        except HostFaultError as error:
            self.note(Step(name, error.fault.code, error.fault.trap.value))
            return False
        self.note(Step(name, 0, "SUCCESS"))
        return True


def _failed(name: str, error: KvmError) -> Step:
    if error.status is not None:
        return Step(name, error.status, error.status.name)
    return Step(name, error.errno or 0, errno.errorcode[error.errno or 0])


def _told(guest: KvmGuest, name: str, number: int, stop: Exit) -> Step:
    match stop.reason:
        case Reason.HLT:
            return _halted(guest, name, number)
        case Reason.RMP_FAULT:
            return Step(name, stop.value, "#NPF")
        case Reason.MEMORY_FAULT:
            return Step(name, 0, "KVM_EXIT_MEMORY_FAULT")
        case Reason.FAIL_ENTRY:
            return replace(_INVALID, command=name)
        case other:
            return Step(name, 0, other.value)


def _halted(guest: KvmGuest, name: str, number: int) -> Step:
    """What a guest that halted had been told itself."""
    vector = guest.vector(number)
    if vector is None:
        return Step(name, 0, "SUCCESS")
    stack = guest.inside(number).rsp
    code = guest.platform.dram.read_private(guest.vm.asid, guest.spa(stack & -PAGE_BYTES) + stack % PAGE_BYTES, 8)
    return Step(name, int.from_bytes(code, "little"), _EXCEPTIONS.get(vector, f"exception {vector}"))
