"""Where a guest is to be launched: memory of the host process, and a VM that has it in its slots."""

from __future__ import annotations

from dataclasses import dataclass

from mh_abi.image import HelperImage
from mh_emulator.dram.process import Place, UserMemory
from mh_emulator.host.installed import Installed
from mh_emulator.host.mirror import Enter, Mirror, enter
from mh_emulator.host.placement import Placement
from mh_emulator.kvm import Vm, VmType
from mh_emulator.platform import Platform

Piece = tuple[Place, bytes]
"""What is launched, and where."""


@dataclass(frozen=True)
class Site:
    """A guest's RAM and its helper on `platform`, as a faithful host lays them out; nothing is launched."""

    platform: Platform
    placement: Placement
    vm: Vm
    memory: UserMemory
    helper: Installed
    loaded: tuple[Piece, ...]
    """Launched before the guest's contents: the helper, where the host loads it."""
    secrets: tuple[Place, ...]
    """Where the secure processor is to put the owner's secret."""
    enter: Enter = enter

    @property
    def base(self) -> int:
        """Mirror GPA of the helper."""
        return self.helper.base

    @property
    def es(self) -> bool:
        """Whether registers are encrypted."""
        return self.vm.has_protected_state

    def mirror(self) -> Mirror:
        """A new mirror of the VM, whose launch has started."""
        vm = _create_vm(self.platform, self.helper.image)
        vm.copy_enc_context_from(self.vm)
        return Mirror(vm, self.helper, self.enter)


def prepare(platform: Platform, placement: Placement, image: HelperImage, base: int | None = None) -> Site:
    """Lay out a guest and its helper; an image with a VMSA makes it an SEV-ES guest.

    `base` is the mirror GPA at which the helper is to be seen; the image's own without it.
    """
    topology = placement.topology
    memory = platform.memory(topology.ram_bytes)
    vm = _create_vm(platform, image)
    for number, block in enumerate(topology.blocks):
        vm.set_user_memory_region(number, block.gpa, block.size, memory, block.ram_addr)
    if image.home is None:
        place = Place(platform.memory(image.memory_bytes), 0)
    else:
        place = Place(memory, topology.ram_addr(image.home))
    helper = Installed(image, place, image.descriptor.link_base if base is None else base, platform.part.c_bit)
    return Site(platform, placement, vm, memory, helper, ((place, helper.code),), (helper.secret,))


def _create_vm(platform: Platform, image: HelperImage) -> Vm:
    return platform.create_vm(VmType.DEFAULT if image.vmsa is None else VmType.SEV_ES)
