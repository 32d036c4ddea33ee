"""The launch of a kernel without firmware, with a helper beside it, on a board whose timer interrupts.

A helper that has a VMSA makes it an SEV-ES guest, whose vCPU begins as it is measured.

KVM is set up as a VMM does: kvmclock, a local APIC with a deadline timer, and CPUID that says so. RDTSCP is not shown,
for the engine has a count of its own; RDRAND, on which a kernel insists that is an SEV guest, repeats.
Source: Linux, Documentation/virt/kvm/x86/cpuid.rst; QEMU, hw/i386/x86.c (x86_load_linux) for what a VMM does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from mh_abi.image import HelperImage
from mh_builder.parts import NO_LEAF
from mh_emulator.cpu.rdrand import Repeating
from mh_emulator.host import handover, landing
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement
from mh_emulator.host.site import prepare
from mh_emulator.kvm import EsVcpu
from mh_emulator.kvm import clock as kvmclock
from mh_emulator.kvm.machine import CpuidChange
from mh_emulator.linux.kernel import Kernel
from mh_emulator.linux.load import Plan, load
from mh_emulator.owner import POLICY, POLICY_ES, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.q35 import cmos, lapic, msrs
from mh_emulator.q35.board import Board, Telling
from mh_emulator.q35.clock import TSC_HZ, Clock
from mh_emulator.q35.flash import NoFlash
from mh_emulator.q35.interrupts import Timer
from mh_emulator.q35.view import HostView
from mh_emulator.q35.whole import has_whole
from mh_emulator.secret import Secret
from mh_emulator.snapshot.shelf import fingerprint

_CLOCKS = kvmclock.KVM_FEATURE_CLOCKSOURCE2 | kvmclock.KVM_FEATURE_CLOCKSOURCE_STABLE
_TSC_DEADLINE, _ARAT, _RDTSCP = 1 << 24, 1 << 2, 1 << 27
CPUID: Mapping[int, CpuidChange] = MappingProxyType({
    1: CpuidChange(NO_LEAF._replace(ecx=_TSC_DEADLINE)),
    6: CpuidChange(NO_LEAF._replace(eax=_ARAT)),
    0x8000_0001: CpuidChange(clear=NO_LEAF._replace(edx=_RDTSCP)),
})  # fmt: skip
"""What the host changes of the part's."""


_SEED = 1


@dataclass(frozen=True)
class Running:
    """A guest with its devices; they stay the same when it moves."""

    machine: Machine
    board: Board
    timer: Timer


class Way(Protocol):
    """How a kernel, and a helper beside it, come into a guest."""

    @property
    def secret(self) -> Secret:
        """The owner's, the same for source and target."""

    def made_of(self) -> dict[str, str]:
        """What decides all of a run."""

    def power_on(self, platform: Platform, telling: Telling) -> Running:
        """Launch a guest that has not begun. Raises `KernelError`, `OwnerRefuses`, `KvmError`."""

    def expect(self, platform: Platform, source: Running) -> Running:
        """Launch where that guest is to arrive. Raises `OwnerRefuses`, `KvmError`."""

    def is_whole(self, machine: Machine) -> bool:
        """Whether the helper's private pages are, byte for byte, what they have to be."""


@dataclass(frozen=True)
class Direct:
    """Without firmware: kernel and helper are launched beside each other."""

    plan: Plan
    helper: HelperImage
    secret: Secret

    def made_of(self) -> dict[str, str]:
        """Kernel, initrd, command line and helper."""
        return made_of_kernel(self.plan.kernel, self.plan.initrd, self.plan.command_line) | {
            "helper": fingerprint(self.helper.data)
        }

    def power_on(self, platform: Platform, telling: Telling) -> Running:
        """Everything is measured."""
        topology = self.plan.topology
        loaded = load(self.plan, platform.part.c_bit)
        site = prepare(platform, Placement(topology, ()), self.helper)
        board = Board(topology, HostView(topology, site.memory), NoFlash(), telling, Clock())
        site.vm.devices = board
        machine = launch(site, self._owner(platform), loaded.contents, self.secret, loaded.registers)
        machine.vcpu.msrs = msrs.after_firmware()
        if machine.helper.hands_over:
            # What a loader in the guest would write; here the host has loaded the helper itself.
            page = handover.write(machine.regions)
            machine.helper_memory.write_raw(machine.helper_offset + machine.helper.ring_offset, page)
        return equip(machine, board)

    def expect(self, platform: Platform, source: Running) -> Running:
        """With its helper and nothing else, under SEV-ES with a landing."""
        topology, board = self.plan.topology, source.board
        site = prepare(platform, Placement(topology, ()), self.helper)
        site.vm.devices = board
        vcpu = source.machine.vcpu
        if isinstance(vcpu, EsVcpu):
            site, landed = landing.add(site, vcpu.levels)
            rest = landing.rest(landed.landing, map(site.helper.registers, range(site.helper.vcpus)))
            machine = launch(site, self._owner(platform, rest), (), self.secret, landed.registers)
            landed.show(source.machine, machine)
        else:
            machine = launch(site, self._owner(platform, ()), (), self.secret, None)
        set_up(machine, board)
        return replace(source, machine=machine)

    def is_whole(self, machine: Machine) -> bool:
        """As they were launched."""
        return has_whole(machine, machine.site.helper.code, self.secret)

    def _owner(self, platform: Platform, rest: Sequence[bytes] | None = None) -> GuestOwner:
        policy = POLICY if self.helper.vmsa is None else POLICY_ES
        return GuestOwner(policy, helper=self.helper.digest(platform.part.c_bit), rest=rest)


def made_of_kernel(kernel: Kernel, initrd: bytes, command_line: str) -> dict[str, str]:
    """What a kernel is, and what it is given."""
    return {
        "kernel": fingerprint(kernel.head + kernel.code),
        "initrd": fingerprint(initrd),
        "command line": command_line,
    }


def equip(machine: Machine, board: Board) -> Running:
    """Give a guest that has not begun what Linux needs: a timer that interrupts, and random numbers that repeat."""
    board.interrupts = timer = Timer(board.apic, board.clock, board.serial)
    set_up(machine, board)
    machine.vm.generator = Repeating(_SEED)
    return Running(machine, board, timer)


def hand_over(source: Machine, target: Machine, board: Board) -> None:
    """Set what a host moves itself: MSRs, which memory the devices see, and registers where it has them.

    The random numbers go on too.
    """
    target.vm.generator = source.vm.generator
    if isinstance(source.vcpu, EsVcpu) and isinstance(target.vcpu, EsVcpu):
        target.vcpu.ghcb = source.vcpu.ghcb
        target.vm.ap_jump_table = source.vm.ap_jump_table
    else:
        target.vcpu.set_registers(source.vcpu.get_registers())
    target.vcpu.msrs = dict(source.vcpu.msrs)
    for index, device in source.vcpu.msr_devices.items():
        target.vcpu.msr_devices[index].write(device.read())
    target.consent.allowed = source.consent.allowed
    board.show(HostView(target.placement.topology, target.memory))


def set_up(machine: Machine, board: Board) -> None:
    """KVM_SET_CPUID2, and the MSRs that do something, as every VMM has to before a vCPU runs."""
    memory = HostView(machine.placement.topology, machine.memory)
    machine.vm.kvm_features |= _CLOCKS
    machine.vm.cpuid_changes = CPUID
    machine.vcpu.msr_devices = {
        lapic.DEADLINE_MSR: lapic.DeadlineMsr(board.apic),
        kvmclock.WALL_CLOCK_MSR: kvmclock.WallClock(memory, cmos.SECONDS),
        kvmclock.SYSTEM_TIME_MSR: kvmclock.SystemTime(memory, TSC_HZ),
    }
