"""The VM whose code a CPU runs, and what of that code has to be looked for."""

from __future__ import annotations

from typing import Protocol

from mh_builder.parts import CpuidResult, Part
from mh_emulator.cpu.devices import Devices
from mh_emulator.cpu.instructions import Interpreted
from mh_emulator.cpu.msr import MsrOwner
from mh_emulator.cpu.nested import GuestPhysical
from mh_emulator.cpu.traps import ALWAYS, Trap


class Executed(GuestPhysical, Interpreted, MsrOwner, Protocol):
    """The VM whose code runs."""

    part: Part
    devices: Devices | None
    """What is at its ports and outside of its slots; None: the hypervisor is asked, with an exit each."""

    @property
    def has_count(self) -> bool:
        """Whether RDTSC has another count than this computer's: the hypervisor's, or that of the model's time."""

    def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
        """What CPUID returns, without what depends on the CPU's state."""


def watched(vm: Executed, *, counts: bool) -> frozenset[Trap]:
    """What has to be looked for in code, where instructions are counted or not; hooks that are not there are free."""
    found = ALWAYS
    if vm.es:
        found |= {Trap.HLT, Trap.CPUID, Trap.STRING}
    elif counts:
        found |= {Trap.HLT}
    if vm.es or vm.devices is None:
        found |= {Trap.IN, Trap.OUT}
    if vm.devices is None:
        found |= {Trap.LOCK}
    if vm.has_count or vm.generator.answers(seed=False):
        found |= {Trap.RDTSC, Trap.RDRAND}
    return found
