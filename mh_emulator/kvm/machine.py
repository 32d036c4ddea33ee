"""What every VM has, whatever protects it: slots, vCPUs, what CPUID says, and which exits the host asked for.

Source: Linux, arch/x86/kvm/x86.c (kvm_vm_ioctl_enable_cap), virt/kvm/kvm_main.c.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mh_builder.paging import Geometry
from mh_builder.parts import NO_LEAF, CpuidResult
from mh_emulator.cpu.devices import Devices
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.process import UserMemory
from mh_emulator.dram.ranges import NativeRanges, Range
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.hypercalls import MAP_GPA_RANGE
from mh_emulator.kvm.msrs import EXIT_REASONS, MsrExits
from mh_emulator.kvm.slots import Slots
from mh_emulator.kvm.vcpu import Vcpu
from mh_emulator.kvm.watched import Watcher, watched
from mh_emulator.rmp.table import Rmp

KVM_FEATURES_LEAF = 0x4000_0001


class CpuidChange(NamedTuple):
    """Bits of a leaf that a host sets, and bits that it clears."""

    set: CpuidResult = NO_LEAF
    clear: CpuidResult = NO_LEAF

    def of(self, result: CpuidResult) -> CpuidResult:
        """What the guest is shown."""
        return CpuidResult(*(value & ~off | on for value, on, off in zip(result, self.set, self.clear, strict=True)))


class VirtualMachine(ABC):
    """One VM; its methods are ioctls on its file descriptor and raise `KvmError`."""

    def __init__(self, dram: Dram, generator: Generator) -> None:
        self.dram = dram
        self.part = dram.part
        self.generator = generator
        self.rmp: Rmp | None = None
        """Of an SNP guest; before any vCPU."""
        self.watchers: list[Watcher] = []
        """Called after every ioctl, those of its vCPUs too."""
        self.tsc: int | None = None
        """What RDTSC gives, every time, where a hostile kernel intercepts it; None: the CPU's own count.

        A plain SEV guest cannot tell. Under SEV-ES the intercept is #VC first.
        """
        self.devices: Devices | None = None
        """What answers at ports and outside of all slots, without an exit that the model shows; before any vCPU."""
        self.geometry: Geometry = self.part.geometry(encrypted=False)
        self.hypercall_exits = 0
        """KVM_CAP_EXIT_HYPERCALL: a bit for each hypercall that leaves for the host."""
        self.msr_exits = MsrExits()
        self.kvm_features = 0
        """EAX of CPUID leaf 4000_0001, which is the host's to set with KVM_SET_CPUID2."""
        self.cpuid_changes: Mapping[int, CpuidChange] = {}
        """By leaf: what the host's KVM_SET_CPUID2 has other than the part."""
        self.ghcb_version = 0
        """Of SEV-ES; a mirror has none, for it is not copied."""
        self.vmsa_features = 0
        """SEV_FEATURES of every VMSA that KVM makes."""
        self.ap_jump_table = 0
        """GPA at which the guest says that its parked vCPUs wait; 0 before it says so."""
        self.absent: set[int] = set()
        """GPAs of pages that `await_pages` has named and that have not come."""
        self._vcpus: list[Vcpu] = []
        self._slots = Slots(self.part.physical_bits)

    @property
    @abstractmethod
    def encrypted(self) -> bool:
        """Whether its memory is encrypted."""

    @property
    @abstractmethod
    def es(self) -> bool:
        """Whether registers are encrypted as well."""

    @property
    def intercepts_tsc(self) -> bool:
        """Whether RDTSC is KVM's: with `tsc`, and in a plain guest with devices, whose time it has to agree with."""
        return self.tsc is not None or (self.devices is not None and not self.es)

    @property
    def has_count(self) -> bool:
        """Whether RDTSC has `count`: where it is KVM's, and as the CPU's own in an SEV-ES guest with devices."""
        return self.tsc is not None or self.devices is not None

    def count(self) -> int:
        """What RDTSC gives then."""
        if self.tsc is not None:
            return self.tsc
        return 0 if self.devices is None else self.devices.count()

    def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
        """What CPUID returns, without what depends on the CPU's state."""
        if leaf == KVM_FEATURES_LEAF:
            return CpuidResult(self.kvm_features, 0, 0, 0)
        result = self.part.cpuid(leaf, subleaf, encrypted=self.encrypted)
        change = self.cpuid_changes.get(leaf)
        return result if change is None else change.of(result)

    @watched("KVM_SET_USER_MEMORY_REGION")
    def set_user_memory_region(self, slot: int, gpa: int, size: int, memory: UserMemory, offset: int) -> None:
        """KVM_SET_USER_MEMORY_REGION: make, move or, with `size` 0, delete a slot."""
        with self.dram.bus:
            self._slots.set(slot, Range(gpa, size, memory, offset))
            self.flush_translations()

    def await_pages(self, gpas: Iterable[int]) -> None:
        """UFFDIO_REGISTER of the pages there: the process is told where a vCPU needs one.

        In Linux the thread in KVM_RUN sleeps meanwhile; here KVM_RUN returns, so that one thread does both. Take a page
        out of `absent` when it has come (UFFDIO_WAKE).
        """
        self.absent.update(gpas)
        self.flush_translations()

    def flush_translations(self) -> None:
        """Have every vCPU walk the nested tables again."""
        for vcpu in self._vcpus:
            vcpu.flush_translations()

    def spa(self, gpa: int) -> int | None:
        """System physical address behind `gpa`, or None where no slot is."""
        return self._slots.spa(gpa)

    def shared_spa(self, gpa: int) -> int | None:
        """Where the host process, and KVM for it, finds what the guest shares at `gpa`."""
        return self._slots.spa(gpa)

    @property
    def memories(self) -> list[UserMemory]:
        """Mappings of the host process that are in slots, each once, by the number of the slot."""
        return self._slots.memories

    @property
    def ranges(self) -> NativeRanges:
        """The slots, for native code."""
        return self._slots.native

    @watched("KVM_CAP_EXIT_HYPERCALL")
    def enable_exit_hypercall(self, mask: int) -> None:
        """KVM_CAP_EXIT_HYPERCALL: let these hypercalls leave; only KVM_HC_MAP_GPA_RANGE can."""
        if mask & ~(1 << MAP_GPA_RANGE):
            raise KvmError(errno.EINVAL, "KVM_CAP_EXIT_HYPERCALL")
        self.hypercall_exits = mask

    @watched("KVM_CAP_X86_USER_SPACE_MSR")
    def enable_user_space_msr(self, reasons: int) -> None:
        """KVM_CAP_X86_USER_SPACE_MSR: let accesses leave that were #GP for one of these reasons."""
        if reasons & ~EXIT_REASONS:
            raise KvmError(errno.EINVAL, "KVM_CAP_X86_USER_SPACE_MSR")
        self.msr_exits.reasons = reasons

    @watched("KVM_X86_SET_MSR_FILTER")
    def set_msr_filter(self, denied: frozenset[int]) -> None:
        """KVM_X86_SET_MSR_FILTER: deny the guest these MSRs."""
        self.msr_exits.denied = denied
