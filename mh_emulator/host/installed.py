"""A helper in memory of the host process: where its parts lie, and how its vCPUs begin."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mh_abi.image import HelperImage
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import Place


@dataclass(frozen=True, slots=True)
class Installed:
    """`image` at `place`, which the mirror sees at GPA `base`."""

    image: HelperImage
    place: Place
    base: int
    c_bit: int

    @property
    def vcpus(self) -> int:
        """vCPUs of the helper, each with a ring."""
        return self.image.descriptor.ring_count

    @property
    def code(self) -> bytes:
        """All its private memory, as it is launched."""
        return self.image.launched(self.base, self.c_bit)

    @property
    def secret(self) -> Place:
        """Where the owner's secret goes."""
        return self.place.at(self.image.descriptor.secret_offset)

    def ring(self, number: int) -> Place:
        """Where the ring of a vCPU begins."""
        return self.place.at(self.image.ring_offset + number * self.image.descriptor.ring_stride)

    def clear_rings(self) -> None:
        """Fill the memory that it shares with the host with zeros."""
        shared = self.ring(0)
        shared.memory.clear(shared.offset, self.image.memory_bytes - self.image.ring_offset)

    def registers(self, number: int = 0) -> Registers:
        """What a faithful host starts vCPU `number` with."""
        descriptor = self.image.descriptor
        cr3 = self.base + descriptor.cr3 - descriptor.link_base | 1 << self.c_bit
        stack = descriptor.stack64 + number * descriptor.vcpu_stride
        if self.image.vmsa is not None:
            return replace(vmsa.load(self.image.vmsa), cr3=cr3, rsp=stack, rdi=number)
        return replace(Registers.long_mode(descriptor.entry64, stack, cr3), rdi=number)
