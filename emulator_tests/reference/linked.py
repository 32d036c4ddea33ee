"""The linked helper on an emulated machine, where nothing is left to chance."""

from __future__ import annotations

from dataclasses import replace

from emulator_tests.reference.terms import PAGE, PLAIN, RAM_LIMIT, RINGS, Terms
from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.parts import PARTS
from mh_emulator.cpu.rdrand import Repeating
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.site import prepare
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform

SEED = 7
"""Of RDRAND."""
TSC = 12345
"""What RDTSC gives."""
DRAM_BYTES = 32 << 20
SHARED_BYTES = RINGS * abi.MH_RING_BYTES
_VMSA_SLOT = 9


def placement(helper: HelperImage) -> Placement:
    """A guest without contents, whose RAM ends where requests end."""
    placed = place(0, helper)
    topology = placed.topology
    return replace(placed, topology=replace(topology, unplugged=RAM_LIMIT - topology.ram_bytes))


class Linked:
    """A guest with all its pages there, all zero; its helper is started. Words of RDRAND and RDTSC are known."""

    def __init__(self, terms: Terms = PLAIN) -> None:
        helper = terms.helper
        platform = Platform(PARTS["milan"], DRAM_BYTES, 1)
        self.generator = platform.generator = Repeating(SEED)
        site = prepare(platform, placement(helper), helper)
        self.machine = launch(site, GuestOwner(POLICY), [], terms.secret)
        self.machine.mirror.vm.tsc = TSC
        self.machine.start_helper()
        self._show_vmsas()
        self._spas = [self._spa(page) for page in terms.pages]
        start = self.machine.helper_offset + helper.ring_offset
        self._ring = start
        for spa in self._spas:
            platform.dram.write_private(self.machine.asid, spa, bytes(PAGE))
        shared = (self.machine.helper_memory.spa(page) for page in range(start, start + SHARED_BYTES, PAGE))
        self._guest_views = [self._view(spa) for spa in self._spas]
        self._shared_views = [self._view(spa) for spa in shared]

    def read(self) -> list[bytes]:
        """Each of the pages of `Terms`: DRAM holds them as the guest sees them."""
        return list(map(bytes, self._guest_views))

    def write(self, page: int, data: bytes) -> None:
        """The guest changes a page; `page` is its place among them."""
        self.machine.platform.dram.write_private(self.machine.asid, self._spas[page], data)

    def read_shared(self) -> list[bytes]:
        """Each page that the helper shares with its host: DRAM holds them as the host sees them."""
        return list(map(bytes, self._shared_views))

    def write_shared(self, offset: int, data: bytes) -> None:
        """The host writes there."""
        self.machine.helper_memory.write_raw(self._ring + offset, data)

    def _spa(self, page: int) -> int:
        return self.machine.memory.spa(page) if page < RAM_LIMIT else self._vmsas.spa(page - RAM_LIMIT)

    def _view(self, spa: int) -> memoryview:
        start = spa - self.machine.platform.dram.base_spa
        return self.machine.platform.dram.view[start : start + PAGE]

    def _show_vmsas(self) -> None:
        machine: Machine = self.machine
        self._vmsas = machine.platform.memory(abi.MH_VMSA_BYTES)
        gpa = (machine.base + machine.helper.descriptor.vmsa_offset) % (1 << 64)
        machine.mirror.vm.set_user_memory_region(_VMSA_SLOT, gpa, abi.MH_VMSA_BYTES, self._vmsas, 0)
