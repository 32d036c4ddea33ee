"""The mirror of a guest's VM, in which the helper runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from mh_abi import abi
from mh_emulator.host.installed import Installed
from mh_emulator.host.ring import HelperStopped, Ring
from mh_emulator.host.view import MirrorSlot
from mh_emulator.host.watchdog import limited
from mh_emulator.kvm import Vcpu, Vm
from mh_emulator.kvm.exits import Exit, Reason

HELPER_SECONDS = 120.0
"""Many times what a full ring of the largest batches takes; a helper that goes on longer never halts."""

Enter = Callable[[Vcpu, float], Exit]
"""KVM_RUN of a helper's vCPU, given up after that many seconds."""


def enter(vcpu: Vcpu, seconds: float) -> Exit:
    """KVM_RUN under a watchdog."""
    with limited(seconds, vcpu.kick):
        return vcpu.run()


class Mirror:
    """`vm`, which has the guest's memory key, and in it the vCPUs of `helper` at their entries; no slot is set yet."""

    def __init__(self, vm: Vm, helper: Installed, run: Enter = enter) -> None:
        self.vm = vm
        self.helper = helper
        self.vcpus = [vm.create_vcpu() for _ in range(helper.vcpus)]
        for number, vcpu in enumerate(self.vcpus):
            vcpu.set_registers(helper.registers(number))
        self.rings = [self._ring(number) for number in range(helper.vcpus)]
        self._enter = run
        self._exits = [0] * helper.vcpus

    @property
    def vcpu(self) -> Vcpu:
        """The vCPU of ring 0."""
        return self.vcpus[0]

    @property
    def exits(self) -> int:
        """KVM_RUN calls of its vCPUs that a faithful host made."""
        return sum(self._exits)

    def show(self, slots: Iterable[MirrorSlot]) -> None:
        """Set the memory slots."""
        for number, slot in enumerate(slots):
            self.vm.set_user_memory_region(number, slot.gpa, slot.size, slot.memory, slot.offset)

    def start(self, slots: Iterable[MirrorSlot], *, anew: bool = False) -> Ring:
        """Start the helper on rings of zeros, and return ring 0. Raises `HelperStopped`.

        `anew` tells the helper that its vCPUs may have stopped in the middle of their work. Under SEV-ES a vCPU
        goes on from where it is: no host sets its registers.
        """
        self.helper.clear_rings()
        self.show(slots)
        self.rings = [self._ring(number) for number in range(self.helper.vcpus)]
        for number in range(self.helper.vcpus):
            if self.vm.has_protected_state:
                self.run(number)
            else:
                self.begin(number, anew=anew)
        return self.rings[0]

    def restart(self, number: int, *, anew: bool = False) -> Ring:
        """Let a vCPU begin at its entry again, with its ring as it is; return the ring, read afresh."""
        self.rings[number] = self._ring(number)
        self.begin(number, anew=anew)
        return self.rings[number]

    def begin(self, number: int, *, anew: bool = False) -> None:
        """Let a vCPU begin at its entry."""
        registers = self.helper.registers(number)
        edi = registers.rdi | (abi.MH_START_ANEW if anew else 0)
        self.vcpus[number].set_registers(replace(registers, rdi=edi))
        self.run(number)

    def run(self, number: int = 0, seconds: float = HELPER_SECONDS) -> None:
        """KVM_RUN of a vCPU until it has nothing to do. Raises `HelperStopped` for any other exit."""
        exit_ = self._enter(self.vcpus[number], seconds)
        self._exits[number] += 1
        if exit_.reason is Reason.LIMIT:
            raise HelperStopped(f"helper has not halted after {seconds:g} seconds")
        if exit_.reason is not Reason.HLT:
            raise HelperStopped(f"helper left with {exit_}")

    def _ring(self, number: int) -> Ring:
        place = self.helper.ring(number)
        return Ring(place.memory, place.offset, partial(self.run, number))
