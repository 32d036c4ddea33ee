"""The target of an SEV-ES guest that knows nothing of its migration: a landing behind all RAM, measured with the rest.

It lies in a slot of its own, outside of what moves. Nothing is launched of the guest itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256

from mh_builder.flat_segments import CS, SS
from mh_builder.landing import Landing
from mh_builder.paging import MIB
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import CR4_LA57, Registers, Table
from mh_emulator.dram.process import Place, UserMemory
from mh_emulator.host.machine import Machine
from mh_emulator.host.site import Site
from mh_emulator.host.topology import FOUR_GIB, Topology
from mh_emulator.kvm import EsVcpu

SLOT = 10
_ALIGNED = 2 * MIB


@dataclass(frozen=True)
class Landed:
    """A landing in the slots of a VM that has not been launched."""

    landing: Landing
    memory: UserMemory

    @property
    def registers(self) -> Registers:
        """How the guest's vCPU begins."""
        return registers(self.landing)

    def show(self, source: Machine, target: Machine) -> None:
        """Have the registers of the source's vCPU move with its pages, to this landing."""
        if isinstance(source.vcpu, EsVcpu):
            source.show_state(source.vcpu.vmsa)
        target.show_state(self.memory, self.landing.state_offset)


def registers(landing: Landing) -> Registers:
    """How a vCPU begins at it; the owner expects them in the measurement."""
    begun = Registers.long_mode(landing.rip, landing.rsp, landing.cr3)
    la57 = CR4_LA57 if landing.levels == 5 else 0
    changes = landing.arguments | {"cs": CS, "ss": SS, "cr4": begun.cr4 | la57}
    return begun.with_changes(gdtr=Table(*landing.gdtr), idtr=Table(*landing.idtr), **changes)


def rest(landing: Landing, states: Iterable[Registers]) -> list[bytes]:
    """SHA-256 of all that an owner expects behind the helper, whose vCPUs begin in these `states`."""
    pages = [vmsa.make(state, fpu=True) for state in (*states, registers(landing))]
    return [sha256(content).digest() for content in (landing.contents, *pages)]


def gpa(topology: Topology) -> int:
    """Where a landing lies: behind all RAM, where no device is."""
    return -(-max(FOUR_GIB, topology.gpa_end) // _ALIGNED) * _ALIGNED


def add(site: Site, levels: int) -> tuple[Site, Landed]:
    """Give `site` a landing that is launched behind its helper, for page tables of that many levels."""
    landing = Landing(gpa(site.placement.topology), site.platform.part.c_bit, levels)
    contents = landing.contents
    memory = site.platform.memory(len(contents))
    site.vm.set_user_memory_region(SLOT, landing.gpa, memory.size, memory, 0)
    return replace(site, loaded=(*site.loaded, (Place(memory, 0), contents))), Landed(landing, memory)
