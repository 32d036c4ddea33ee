"""The launch of a guest that begins at the reset vector of its firmware: the flash is all that is measured of it.

Source: QEMU, hw/i386/pc_sysfw.c (where flash lies, and that it is encrypted in place under SEV).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from mh_abi.image import HelperImage
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import Place, UserMemory
from mh_emulator.host.launch import Launch, launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement
from mh_emulator.host.site import Piece, Site, prepare
from mh_emulator.host.topology import FOUR_GIB, LOW_LIMIT, Topology
from mh_emulator.kvm import Vcpu, Vm
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.q35 import msrs
from mh_emulator.q35.board import Board
from mh_emulator.q35.view import HostView
from mh_emulator.secret import Secret

_FLASH_SLOT = 8


@dataclass
class Powered:
    """A guest behind RESET, with its devices."""

    vm: Vm
    vcpu: Vcpu
    memory: UserMemory
    flash: UserMemory
    board: Board


@dataclass(frozen=True)
class Telling:
    """Who is told of a line on the debug port, and of the first use of a device."""

    line: Callable[[str], None]
    use: Callable[[str], None]


@dataclass(frozen=True)
class Carrier:
    """A flash image with `helper` in it, and what the guest's owner has for that helper."""

    flash: bytes
    helper: HelperImage
    secret: Secret


def topology(ram_bytes: int) -> Topology:
    """RAM as q35 lays it out."""
    below = min(ram_bytes, LOW_LIMIT)
    return Topology(below=below, above=ram_bytes - below)


def power_on(platform: Platform, flash: bytes, ram_bytes: int, telling: Telling) -> Powered:
    """Launch a guest that has no helper. Raises `OwnerRefuses`, `KvmError`."""
    ram = topology(ram_bytes)
    memory, vm = platform.memory(ram.ram_bytes), platform.create_vm()
    for number, block in enumerate(ram.blocks):
        vm.set_user_memory_region(number, block.gpa, block.size, memory, block.ram_addr)
    place = _map_flash(platform, vm, flash)
    board = Board(ram, HostView(ram, memory), telling.line, telling.use)
    vm.devices = board
    begun = Launch(platform, vm, GuestOwner(POLICY, helper=hashlib.sha256(flash).digest()))
    begun.load(place, flash)
    begun.finish(b"", ())
    vcpu = vm.create_vcpu()
    vcpu.set_registers(Registers.reset(platform.part.signature))
    vcpu.msrs = msrs.after_reset()
    return Powered(vm, vcpu, memory, place.memory, board)


def power_on_with_helper(
    platform: Platform, carrier: Carrier, ram_bytes: int, telling: Telling
) -> tuple[Powered, Machine]:
    """Launch a guest whose firmware will load the helper; its owner gives the secret to that flash and to no other.

    Raises `OwnerRefuses`, `KvmError`.
    """
    ram = topology(ram_bytes)
    site, flash = prepare(platform, Placement(ram, ()), carrier.helper), carrier.flash
    place = _map_flash(platform, site.vm, flash)
    board = Board(ram, HostView(ram, site.memory), telling.line, telling.use)
    site.vm.devices = board
    owner = GuestOwner(POLICY, helper=hashlib.sha256(flash).digest())
    machine = _launched(site, owner, ((place, flash),), carrier.secret, Registers.reset(platform.part.signature))
    machine.vcpu.msrs = msrs.after_reset()
    return Powered(site.vm, machine.vcpu, site.memory, place.memory, board), machine


def expect(platform: Platform, source: Powered, carrier: Carrier) -> tuple[Powered, Machine]:
    """Launch where that guest is to arrive: with the helper, and with its flash. Its devices will be those of `source`.

    Raises `OwnerRefuses`, `KvmError`.
    """
    ram = topology(source.memory.size)
    site = prepare(platform, Placement(ram, ()), carrier.helper)
    place = _map_flash(platform, site.vm, carrier.flash)
    site.vm.devices = source.board
    owner = GuestOwner(POLICY, helper=carrier.helper.digest(platform.part.c_bit))
    machine = _launched(site, owner, (*site.loaded, (place, carrier.flash)), carrier.secret, None)
    return Powered(site.vm, machine.vcpu, site.memory, place.memory, source.board), machine


def _launched(
    site: Site, owner: GuestOwner, loaded: tuple[Piece, ...], secret: Secret, registers: Registers | None
) -> Machine:
    return launch(replace(site, loaded=loaded), owner, (), secret, registers)


def _map_flash(platform: Platform, vm: Vm, flash: bytes) -> Place:
    """Flash ends at 4 GiB."""
    memory = platform.memory(len(flash))
    vm.set_user_memory_region(_FLASH_SLOT, FOUR_GIB - len(flash), len(flash), memory, 0)
    return Place(memory, 0)
