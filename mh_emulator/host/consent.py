"""What a guest tells its host through KVM: which pages it shares, and that it may be migrated.

Source: Linux, Documentation/virt/kvm/x86/hypercalls.rst (KVM_HC_MAP_GPA_RANGE) and msr.rst (MSR_KVM_MIGRATION_CONTROL).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.topology import Topology
from mh_emulator.kvm import Vcpu, hypercalls, msrs
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.machine import VirtualMachine

MSR_KVM_MIGRATION_CONTROL = 0x4B56_4D08
MIGRATION_READY = 1 << 0

KVM_FEATURE_HC_MAP_GPA_RANGE = 1 << 16
KVM_FEATURE_MIGRATION_CONTROL = 1 << 17
"""EAX of CPUID leaf 4000_0001 (arch/x86/include/uapi/asm/kvm_para.h)."""

_LARGEST_PAGE_HINT = 2
_ENCRYPTED = hypercalls.MAP_GPA_RANGE_ENCRYPTED
_ALL = (1 << 64) - 1


class ConsentState(NamedTuple):
    """Whether the migration is allowed, whether it ever was, and which RAM is shared: (first `ram_addr`, end) each."""

    allowed: bool
    has_allowed: bool
    shared: tuple[tuple[int, ...], ...]


class Consent:
    """The guest in `vm`; `on_allowed` is called before the host agrees to its first write of 1, and may raise."""

    def __init__(self, vm: VirtualMachine, topology: Topology, on_allowed: Callable[[], None]) -> None:
        self._topology = topology
        self._on_allowed = on_allowed
        self.allowed = False
        """Bit 0 of MSR_KVM_MIGRATION_CONTROL, which starts as 0 for an encrypted guest."""
        self.shared: set[int] = set()
        """`ram_addr` of every page that the guest shares; all others are private."""
        self._has_allowed = False
        vm.kvm_features = KVM_FEATURE_HC_MAP_GPA_RANGE | KVM_FEATURE_MIGRATION_CONTROL
        vm.enable_exit_hypercall(1 << hypercalls.MAP_GPA_RANGE)
        vm.enable_user_space_msr(msrs.EXIT_FILTER)
        vm.set_msr_filter(frozenset({MSR_KVM_MIGRATION_CONTROL}))

    @property
    def state(self) -> ConsentState:
        """What the guest has said so far."""
        return ConsentState(self.allowed, self._has_allowed, tuple(_spans(sorted(self.shared))))

    def restore(self, state: ConsentState) -> None:
        """Have been told that; `ValueError` for what is no RAM."""
        self.shared.clear()
        for span in state.shared:
            if len(span) != 2 or span[0] % PAGE_BYTES or not span[0] <= span[1] <= self._topology.ram_bytes:
                raise ValueError(f"shared RAM of {', '.join(f'{one:#x}' for one in span)}")
            self.shared.update(range(*span, PAGE_BYTES))
        self.allowed, self._has_allowed = state.allowed, state.has_allowed

    def run(self, vcpu: Vcpu, max_instructions: int | None = None) -> Exit:
        """KVM_RUN of the guest's vCPU, until something else than a hypercall; what it says is answered."""
        while True:
            exit_ = vcpu.run(max_instructions)
            self.serve(vcpu, exit_)
            if exit_.reason is not Reason.HYPERCALL:
                return exit_

    def serve(self, vcpu: Vcpu, exit_: Exit) -> None:
        """Answer the exit if it is one of these."""
        if exit_.reason is Reason.HYPERCALL:
            vcpu.answer(self._map_gpa_range(*exit_.arguments) & _ALL)
        elif exit_.reason is Reason.MSR and exit_.is_write:
            self._write_control(vcpu, exit_.value)
        elif exit_.reason is Reason.MSR:
            vcpu.answer(MIGRATION_READY if self.allowed else 0)

    def _map_gpa_range(self, gpa: int, pages: int, attributes: int) -> int:
        """What RAX is to be."""
        known = attributes & (_ENCRYPTED | _ENCRYPTED - 1)
        if attributes != known or known % _ENCRYPTED > _LARGEST_PAGE_HINT:
            return -hypercalls.EINVAL
        end = gpa + pages * PAGE_BYTES
        block = next((one for one in self._topology.blocks if one.gpa <= gpa and end <= one.gpa + one.size), None)
        if block is None:
            return -hypercalls.EINVAL
        first = gpa - block.gpa + block.ram_addr
        named = range(first, first + end - gpa, PAGE_BYTES)
        if attributes & _ENCRYPTED:
            self.shared.difference_update(named)
        else:
            self.shared.update(named)
        return 0

    def _write_control(self, vcpu: Vcpu, value: int) -> None:
        if value & ~MIGRATION_READY:
            vcpu.answer(error=True)
            return
        if value and not self._has_allowed:
            self._on_allowed()
            self._has_allowed = True
        self.allowed = bool(value)


def _spans(pages: list[int]) -> list[tuple[int, int]]:
    """Pages as ranges of addresses."""
    if not pages:
        return []
    cuts = [(before, after) for before, after in pairwise(pages) if after != before + PAGE_BYTES]
    starts, ends = [pages[0], *(after for _, after in cuts)], [*(before for before, _ in cuts), pages[-1]]
    return [(start, end + PAGE_BYTES) for start, end in zip(starts, ends, strict=True)]
