"""The linked helper on an emulated machine, where nothing is left to chance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from emulator_tests.helper.conftest import SECRET
from mh_abi import abi
from mh_abi.image import HelperImage, parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_builder.schemes.space import HOME_START, Options
from mh_emulator.cpu.rdrand import Repeating
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.site import prepare
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform

PAGE = abi.MH_PAGE_BYTES
RINGS = 2
SEED = 7
"""Of RDRAND."""
TSC = 12345
"""What RDTSC gives."""
DRAM_BYTES = 32 << 20
SHARED_BYTES = RINGS * abi.MH_RING_BYTES
_VMSA_SLOT = 9


RAM_LIMIT = 0xB0_5000
"""Above a helper at the lowest home; the last page is in the middle of a word of the maps."""


@cache
def image() -> Image:
    """A helper of two rings."""
    return build_helper("regions", Options(vcpus=RINGS, home=HOME_START, ram_limit=RAM_LIMIT))


def placement() -> Placement:
    """A guest without contents, whose RAM ends where requests end."""
    placed = place(0, helper_image())
    topology = placed.topology
    return replace(placed, topology=replace(topology, unplugged=RAM_LIMIT - topology.ram_bytes))


@cache
def helper_image() -> HelperImage:
    """`image`, as a host reads it."""
    return parse_image(image().data)


@cache
def protected() -> range:
    """Addresses of the helper's own pages."""
    helper = helper_image()
    return range(HOME_START, HOME_START + helper.memory_bytes)


@cache
def pages() -> tuple[int, ...]:
    """All pages that the helper sees of the guest, as the maps count them: RAM, and VMSAs behind it."""
    return tuple(page for page in range(0, RAM_LIMIT + abi.MH_VMSA_BYTES, PAGE) if page not in protected())


class Linked:
    """A guest with all its pages there, all zero; its helper is started. Words of RDRAND and RDTSC are known."""

    def __init__(self) -> None:
        helper = helper_image()
        platform = Platform(PARTS["milan"], DRAM_BYTES, 1)
        self.generator = platform.generator = Repeating(SEED)
        site = prepare(platform, placement(), helper)
        self.machine = launch(site, GuestOwner(POLICY), [], SECRET)
        self.machine.mirror.vm.tsc = TSC
        self.machine.start_helper()
        self._show_vmsas()
        self._spas = [
            self.machine.memory.spa(page) if page < RAM_LIMIT else self._vmsas.spa(page - RAM_LIMIT) for page in pages()
        ]
        start = self.machine.helper_offset + helper.ring_offset
        self._ring = start
        for spa in self._spas:
            platform.dram.write_private(self.machine.asid, spa, bytes(PAGE))
        shared = (self.machine.helper_memory.spa(page) for page in range(start, start + SHARED_BYTES, PAGE))
        self._guest_views = [self._view(spa) for spa in self._spas]
        self._shared_views = [self._view(spa) for spa in shared]

    def read(self) -> list[bytes]:
        """Each of `pages`: DRAM holds them as the guest sees them."""
        return list(map(bytes, self._guest_views))

    def write(self, page: int, data: bytes) -> None:
        """The guest changes a page; `page` is its place in `pages`."""
        self.machine.platform.dram.write_private(self.machine.asid, self._spas[page], data)

    def read_shared(self) -> list[bytes]:
        """Each page that the helper shares with its host: DRAM holds them as the host sees them."""
        return list(map(bytes, self._shared_views))

    def write_shared(self, offset: int, data: bytes) -> None:
        """The host writes there."""
        self.machine.helper_memory.write_raw(self._ring + offset, data)

    def _view(self, spa: int) -> memoryview:
        start = spa - self.machine.platform.dram.base_spa
        return self.machine.platform.dram.view[start : start + PAGE]

    def _show_vmsas(self) -> None:
        machine: Machine = self.machine
        self._vmsas = machine.platform.memory(abi.MH_VMSA_BYTES)
        gpa = (machine.base + machine.helper.descriptor.vmsa_offset) % (1 << 64)
        machine.mirror.vm.set_user_memory_region(_VMSA_SLOT, gpa, abi.MH_VMSA_BYTES, self._vmsas, 0)
