"""Hosts that answer CPUID in their own way, and CPUs that have more than ours."""

from __future__ import annotations

from collections.abc import Callable

from mh_builder.parts import NO_LEAF, CpuidResult
from mh_emulator.cpu.msr import MSR_SEV_STATUS, Msrs
from mh_emulator.kvm.machine import KVM_FEATURES_LEAF
from mh_emulator.kvm.vcpu import Vcpu
from mh_emulator.kvm.vm import Vm

ENCRYPTION_LEAF = 0x8000_001F
KVM_LEAF = KVM_FEATURES_LEAF - 1
SECOND_INTERFACE, LAST_INTERFACE = 0x100, 0xFF00
"""How far behind the first interface of a hypervisor its next one lies, and the last that is looked for."""

SEV_STATUS_SNP = 1 << 2


def answering(asked: int, change: Callable[[CpuidResult], CpuidResult]) -> type[Vm]:
    """A host that changes what one leaf says."""

    class Answering(Vm):
        def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
            result = super().cpuid(leaf, subleaf)
            return change(result) if leaf == asked else result

    return Answering


EXTENDED_LEAF = 0x8000_0000
HasNoEncryptionLeaf = answering(EXTENDED_LEAF, lambda result: result._replace(eax=ENCRYPTION_LEAF - 1))
"""A CPU whose extended leaves end before that."""


class HidesSev(Vm):
    """A host that tells the guest there is no SEV."""

    def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
        result = super().cpuid(leaf, subleaf)
        return result._replace(eax=0) if leaf == ENCRYPTION_LEAF else result


def names_c_bit(bit: int) -> type[Vm]:
    """A host that names another bit."""

    class NamesCBit(Vm):
        def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
            result = super().cpuid(leaf, subleaf)
            return result._replace(ebx=result.ebx & ~0x3F | bit) if leaf == ENCRYPTION_LEAF else result

    return NamesCBit


class IsNoKvm(Vm):
    """Another hypervisor, in whose leaf of features every bit means something else."""

    def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
        result = super().cpuid(leaf, subleaf)
        return result._replace(ecx=result.ecx ^ 1) if leaf == KVM_LEAF else result


class IsNoHypervisor(Vm):
    """What lies at the hypervisor's leaves means nothing where CPUID does not say that there is one."""

    def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
        result = super().cpuid(leaf, subleaf)
        return result._replace(ecx=result.ecx & ~(1 << 31)) if leaf == 1 else result


def shows_others_first(distance: int) -> type[Vm]:
    """KVM whose own interface lies so far behind the first one."""

    class ShowsOthersFirst(Vm):
        def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
            if leaf in {KVM_LEAF, KVM_FEATURES_LEAF}:
                return NO_LEAF
            is_own = leaf - distance in {KVM_LEAF, KVM_FEATURES_LEAF}
            return super().cpuid(leaf - distance if is_own else leaf, subleaf)

    return ShowsOthersFirst


ShowsAnotherFirst = shows_others_first(SECOND_INTERFACE)
"""KVM with Hyper-V's interface before its own."""


class _SnpMsrs(Msrs):
    def read(self, index: int) -> int:
        return super().read(index) | (SEV_STATUS_SNP if index == MSR_SEV_STATUS else 0)


class _NoSevMsrs(Msrs):
    def read(self, index: int) -> int:
        return 0 if index == MSR_SEV_STATUS else super().read(index)


def _with_msrs(vcpu: Vcpu, msrs: type[Msrs], vm: Vm) -> Vcpu:
    core = vcpu._core
    core.msrs = core._microcode._msrs = msrs(core._engine, vm)
    return vcpu


class HasSnp(Vm):
    """A CPU that says of its guest that SNP is active."""

    def create_vcpu(self) -> Vcpu:
        return _with_msrs(super().create_vcpu(), _SnpMsrs, self)


class SaysInactive(Vm):
    """A CPU whose MSR says that SEV is not active, whatever CPUID shows."""

    def create_vcpu(self) -> Vcpu:
        return _with_msrs(super().create_vcpu(), _NoSevMsrs, self)
