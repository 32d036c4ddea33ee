"""A guest that has been launched, as its host has it."""

from __future__ import annotations

from collections.abc import Sequence

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host import handover
from mh_emulator.host.consent import Consent
from mh_emulator.host.site import Site
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit


class Guest:
    """The guest launched at `site`, with its vCPU."""

    def __init__(self, site: Site, vcpu: Vcpu) -> None:
        self.platform = site.platform
        self.placement = site.placement
        self.memory = site.memory
        self.vm = site.vm
        self.vcpu = vcpu
        self.es = site.es
        """Whether registers are encrypted."""
        self.helper = site.helper.image
        self.base = site.base
        """Mirror GPA of the helper."""
        self.helper_memory = site.helper.place.memory
        self.helper_offset = site.helper.place.offset
        self.consent = Consent(self.vm, self.placement.topology, self._take_handover)
        self.regions = handover.image_regions(self.helper, self.base)
        """`regions`: where the mirror sees the helper; what the guest has handed over, once it has."""

    @property
    def asid(self) -> int:
        """The ASID of the guest, and of its mirror."""
        return self.vm.asid

    def run_guest(self, max_instructions: int | None = None) -> Exit:
        """KVM_RUN of the guest's vCPU, until something else than a hypercall; raise `HandoverError`."""
        return self.consent.run(self.vcpu, max_instructions)

    def request_address(self, ram_addr: int) -> int:
        """How a request names the page at `ram_addr`."""
        return self.placement.topology.gpa(ram_addr) if self.helper.by_gpa else ram_addr

    def guest_pages(self) -> list[int]:
        """`ram_addr` of every page that has a frame, is not shared and not the helper's."""
        return [page for page in self._own_pages() if page not in self.consent.shared]

    def shared_pages(self) -> list[int]:
        """`ram_addr` of every page that has a frame, is shared with the host and not the helper's."""
        return [page for page in self._own_pages() if page in self.consent.shared]

    def read_guest(self, ram_addr: int, size: int = PAGE_BYTES) -> bytes:
        """What the guest sees at `ram_addr`, within one page."""
        return self.platform.dram.read_private(self.asid, self.memory.spa(ram_addr), size)

    def read_pages(self, pages: Sequence[int]) -> bytes:
        """What the guest sees in the pages at these `ram_addr`, one after the other."""
        return self.platform.dram.read_pages(self.asid, [self.memory.spa(page) for page in pages])

    def peek_pages(self, pages: Sequence[int]) -> bytes:
        """What DRAM holds of these pages."""
        return self.platform.dram.peek_pages([self.memory.spa(page) for page in pages])

    def read_helper(self, offset: int, size: int) -> bytes:
        """What the helper sees in its private memory, `offset` bytes from its base, within one page."""
        return self.platform.dram.read_private(self.asid, self.helper_memory.spa(self.helper_offset + offset), size)

    def write_helper(self, offset: int, data: bytes) -> None:
        """Change the helper's private memory, within one page, as only the holder of the memory key can."""
        self.platform.dram.write_private(self.asid, self.helper_memory.spa(self.helper_offset + offset), data)

    def _own_pages(self) -> list[int]:
        start = self.helper_offset if self.helper_memory is self.memory else 0
        end = start + self.helper.memory_bytes if self.helper_memory is self.memory else 0
        return [page for page in self.memory.populated() if not start <= page < end]

    def _take_handover(self) -> None:
        """The guest allows its migration for the first time: look where its helper lies, once."""
        if self.helper.hands_over:
            page = self.helper_memory.read_raw(self.helper_offset + self.helper.ring_offset, len(abi.mh_handover))
            self.regions = handover.read(page, self.limits())

    def limits(self) -> handover.Limits:
        """What a hand-over of this guest is held against."""
        window = self.helper.descriptor.window
        ram = range(window, window + self.helper.descriptor.ram_limit)
        return handover.Limits(self.placement.topology, ram, self.platform.part.physical_bits)
