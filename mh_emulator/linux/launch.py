"""The launch of a kernel without firmware, with a helper beside it, on a board whose timer interrupts.

KVM is set up as a VMM does: kvmclock, a local APIC with a deadline timer, and CPUID that says so. RDTSCP is not shown,
for the engine has a count of its own; RDRAND, on which a kernel insists that is an SEV guest, repeats.
Source: Linux, Documentation/virt/kvm/x86/cpuid.rst; QEMU, hw/i386/x86.c (x86_load_linux) for what a VMM does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from mh_abi.image import HelperImage
from mh_builder.parts import NO_LEAF
from mh_emulator.cpu.rdrand import Repeating
from mh_emulator.host import handover
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement
from mh_emulator.host.site import prepare
from mh_emulator.kvm import clock as kvmclock
from mh_emulator.kvm.machine import CpuidChange
from mh_emulator.linux.load import Plan, load
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.q35 import cmos, lapic, msrs
from mh_emulator.q35.board import Board, Telling
from mh_emulator.q35.clock import TSC_HZ, Clock
from mh_emulator.q35.flash import NoFlash
from mh_emulator.q35.interrupts import Timer
from mh_emulator.q35.view import HostView
from mh_emulator.secret import Secret

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
class Cargo:
    """What is to be launched beside each other, and what the guest's owner has for the helper."""

    plan: Plan
    helper: HelperImage
    secret: Secret


@dataclass(frozen=True)
class Running:
    """A guest with its devices; they stay the same when it moves."""

    machine: Machine
    board: Board
    timer: Timer


def power_on(platform: Platform, cargo: Cargo, telling: Telling) -> Running:
    """Launch it, with the kernel's first instruction next. Raises `KernelError`, `OwnerRefuses`, `KvmError`."""
    topology = cargo.plan.topology
    loaded = load(cargo.plan, platform.part.c_bit)
    site = prepare(platform, Placement(topology, ()), cargo.helper)
    board = Board(topology, HostView(topology, site.memory), NoFlash(), telling, Clock())
    board.interrupts = timer = Timer(board.apic, board.clock, board.serial)
    site.vm.devices = board
    owner = GuestOwner(POLICY, helper=cargo.helper.digest(platform.part.c_bit))
    machine = launch(site, owner, loaded.contents, cargo.secret, loaded.registers)
    _equip(machine, board, HostView(topology, site.memory))
    machine.vcpu.msrs = msrs.after_firmware()
    machine.vm.generator = Repeating(_SEED)
    if machine.helper.hands_over:
        # What a loader in the guest would write; here the host has loaded the helper itself.
        page = handover.write(machine.regions)
        machine.helper_memory.write_raw(machine.helper_offset + machine.helper.ring_offset, page)
    return Running(machine, board, timer)


def expect(platform: Platform, cargo: Cargo, source: Running) -> Running:
    """Launch where that guest is to arrive: with its helper and nothing else. Raises `OwnerRefuses`, `KvmError`."""
    topology, board = cargo.plan.topology, source.board
    site = prepare(platform, Placement(topology, ()), cargo.helper)
    site.vm.devices = board
    owner = GuestOwner(POLICY, helper=cargo.helper.digest(platform.part.c_bit))
    machine = launch(site, owner, (), cargo.secret, None)
    _equip(machine, board, HostView(topology, site.memory))
    return replace(source, machine=machine)


def hand_over(source: Machine, target: Machine, board: Board) -> None:
    """Set what a host moves itself: registers, MSRs, which memory the devices see. The random numbers go on too."""
    target.vm.generator = source.vm.generator
    target.vcpu.set_registers(source.vcpu.get_registers())
    target.vcpu.msrs = dict(source.vcpu.msrs)
    for index, device in source.vcpu.msr_devices.items():
        target.vcpu.msr_devices[index].write(device.read())
    target.consent.allowed = source.consent.allowed
    board.show(HostView(target.placement.topology, target.memory))


def _equip(machine: Machine, board: Board, memory: HostView) -> None:
    machine.vm.kvm_features |= _CLOCKS
    machine.vm.cpuid_changes = CPUID
    machine.vcpu.msr_devices = {
        lapic.DEADLINE_MSR: lapic.DeadlineMsr(board.apic),
        kvmclock.WALL_CLOCK_MSR: kvmclock.WallClock(memory, cmos.SECONDS),
        kvmclock.SYSTEM_TIME_MSR: kvmclock.SystemTime(memory, TSC_HZ),
    }
