"""The launch of a guest that begins at the reset vector of its firmware: of it the code in flash alone is measured.

Source: QEMU, hw/i386/pc_sysfw.c (pc_system_flash_map: unit 0 ends at 4 GiB and is encrypted under SEV, unit 1 lies
below it and is not).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from mh_abi.image import HelperImage
from mh_builder.firmware.units import Units
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import Place, UserMemory
from mh_emulator.host.launch import Launch, launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement
from mh_emulator.host.site import Piece, Site, prepare
from mh_emulator.host.topology import FOUR_GIB, LOW_LIMIT, Topology
from mh_emulator.kvm import Vcpu, Vm, VmType
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.psp.policy import Policy
from mh_emulator.q35 import msrs
from mh_emulator.q35.board import Board, Telling
from mh_emulator.q35.clock import LOOK_NS_ES, Clock
from mh_emulator.q35.flash import Flash, MemoryDevice, NoFlash
from mh_emulator.q35.view import HostView
from mh_emulator.q35.whole import has_whole
from mh_emulator.secret import Secret
from mh_emulator.uefi.loaded import loaded

_CODE_SLOT, _VARIABLES_SLOT = 8, 9
_KINDS = (VmType.DEFAULT, VmType.SEV_ES)


@dataclass
class Powered:
    """A guest behind RESET, with its devices."""

    vm: Vm
    vcpu: Vcpu
    memory: UserMemory
    flash: UserMemory
    board: Board


@dataclass(frozen=True)
class Carrier:
    """A flash image with `helper` in it, and what the guest's owner has for that helper."""

    flash: bytes
    helper: HelperImage
    secret: Secret

    def is_whole(self, machine: Machine) -> bool:
        """Whether that helper's private pages are, byte for byte, what its loader has to leave there."""
        return has_whole(machine, loaded(self.helper, machine.platform.part.c_bit), self.secret)


def topology(ram_bytes: int) -> Topology:
    """RAM as q35 lays it out."""
    below = min(ram_bytes, LOW_LIMIT)
    return Topology(below=below, above=ram_bytes - below)


def power_on(platform: Platform, units: Units, ram_bytes: int, policy: int, telling: Telling) -> Powered:
    """Launch a guest of that policy, without a mirror. Raises `OwnerRefuses`, `KvmError`."""
    ram, reset = topology(ram_bytes), Registers.reset(platform.part.signature)
    is_es = bool(policy & Policy.ES)
    memory, vm = platform.memory(ram.ram_bytes), platform.create_vm(_KINDS[is_es])
    for number, block in enumerate(ram.blocks):
        vm.set_user_memory_region(number, block.gpa, block.size, memory, block.ram_addr)
    place = _map_code(platform, vm, units.code)
    flash = _map_variables(platform, vm, units)
    clock = Clock(LOOK_NS_ES) if is_es else Clock()
    board = Board(ram, HostView(ram, memory), flash, telling, clock)
    vm.devices = board
    begun = Launch(platform, vm, GuestOwner(policy, helper=hashlib.sha256(units.code).digest()))
    begun.load(place, units.code)
    vcpu = vm.create_vcpu()
    vcpu.set_registers(reset)
    vcpu.msrs = msrs.after_reset()
    if vm.es:
        begun.protect(vm, [reset])
    begun.finish(b"", ())
    return Powered(vm, vcpu, memory, place.memory, board)


def power_on_with_helper(
    platform: Platform, carrier: Carrier, ram_bytes: int, telling: Telling
) -> tuple[Powered, Machine]:
    """Launch a guest whose firmware will load the helper; its owner gives the secret to that flash and to no other.

    Raises `OwnerRefuses`, `KvmError`.
    """
    ram = topology(ram_bytes)
    site, flash = prepare(platform, Placement(ram, ()), carrier.helper), carrier.flash
    place = _map_code(platform, site.vm, flash)
    board = Board(ram, HostView(ram, site.memory), NoFlash(), telling, Clock())
    site.vm.devices = board
    owner = GuestOwner(POLICY, helper=hashlib.sha256(flash).digest())
    machine = _launched(site, owner, ((place, flash),), carrier.secret, Registers.reset(platform.part.signature))
    machine.vcpu.msrs = msrs.after_reset()
    return Powered(site.vm, machine.vcpu, site.memory, place.memory, board), machine


def expect(platform: Platform, board: Board, carrier: Carrier, ram_bytes: int) -> tuple[Powered, Machine]:
    """Launch where a guest is to arrive: with the helper, and with its flash. Its devices will be those of `board`.

    Raises `OwnerRefuses`, `KvmError`.
    """
    ram = topology(ram_bytes)
    site = prepare(platform, Placement(ram, ()), carrier.helper)
    place = _map_code(platform, site.vm, carrier.flash)
    site.vm.devices = board
    owner = GuestOwner(POLICY, helper=carrier.helper.digest(platform.part.c_bit))
    machine = _launched(site, owner, (*site.loaded, (place, carrier.flash)), carrier.secret, None)
    return Powered(site.vm, machine.vcpu, site.memory, place.memory, board), machine


def _launched(
    site: Site, owner: GuestOwner, loaded: tuple[Piece, ...], secret: Secret, registers: Registers | None
) -> Machine:
    return launch(replace(site, loaded=loaded), owner, (), secret, registers)


def _map_code(platform: Platform, vm: Vm, code: bytes) -> Place:
    memory = platform.memory(len(code))
    vm.set_user_memory_region(_CODE_SLOT, FOUR_GIB - len(code), len(code), memory, 0)
    return Place(memory, 0)


def _map_variables(platform: Platform, vm: Vm, units: Units) -> MemoryDevice:
    if not units.variables:
        return NoFlash()
    memory, end = platform.memory(len(units.variables)), FOUR_GIB - len(units.code)
    memory.write_raw(0, units.variables)
    vm.set_user_memory_region(_VARIABLES_SLOT, end - memory.size, memory.size, memory, 0)
    return Flash(memory, end)
