"""What the mirror sees: its memory slots, from what the image says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mh_abi.image import HelperImage
from mh_emulator.dram.process import UserMemory
from mh_emulator.host.handover import Region
from mh_emulator.host.topology import FOUR_GIB, Topology


@dataclass(frozen=True, slots=True)
class MirrorSlot:
    """A memory slot of the mirror: `size` bytes of `memory` from `offset`, seen at `gpa`."""

    gpa: int
    size: int
    memory: UserMemory
    offset: int


@dataclass(frozen=True, slots=True)
class View:
    """A guest's RAM and its helper at mirror GPA `base`. The helper's memory is the guest's unless it has no home."""

    helper: HelperImage
    base: int
    topology: Topology
    memory: UserMemory
    helper_memory: UserMemory

    def slots(self, regions: Iterable[Region]) -> Iterator[MirrorSlot]:
        """All slots; `regions` are the tuples by which the mirror sees the helper elsewhere than the guest does."""
        if self.helper.by_gpa:
            yield from self._blocks(self.topology.gpa_end)
            return
        if self.helper.home is not None and not self.helper.hands_over:
            yield from self._blocks(FOUR_GIB)
        yield MirrorSlot(self.helper.descriptor.window, self.memory.size, self.memory, 0)
        for region in regions:
            offset = self.topology.ram_addr(region.main_gpa)
            yield MirrorSlot(region.mirror_gpa, region.length, self.memory, offset)
        if self.helper.home is None:
            yield MirrorSlot(self.base, self.helper_memory.size, self.helper_memory, 0)

    def _blocks(self, end: int) -> Iterator[MirrorSlot]:
        """The guest's blocks of RAM below GPA `end`, each at its GPA."""
        for block in self.topology.blocks:
            if block.gpa < end:
                yield MirrorSlot(block.gpa, block.size, self.memory, block.ram_addr)
