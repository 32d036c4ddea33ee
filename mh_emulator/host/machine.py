"""One side of a migration: a launched guest with the helper in its mirror."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.process import UserMemory
from mh_emulator.host.guest import Guest
from mh_emulator.host.mirror import Mirror
from mh_emulator.host.ring import Ring
from mh_emulator.host.site import Site
from mh_emulator.host.view import MirrorSlot, View
from mh_emulator.kvm import Vcpu


class Machine(Guest):
    """The guest launched at `site`, and its mirror, in the hands of a faithful host."""

    def __init__(self, site: Site, vcpu: Vcpu, mirror: Mirror) -> None:
        super().__init__(site, vcpu)
        self.site = site
        self.mirror = mirror
        self._shown: list[MirrorSlot] = []

    @property
    def vcpus(self) -> int:
        """vCPUs of the helper, each with a ring."""
        return len(self.mirror.vcpus)

    @property
    def rings(self) -> list[Ring]:
        """One for each vCPU of the helper."""
        return self.mirror.rings

    def start_helper(self, *, anew: bool = False) -> Ring:
        """Start the helper, and return ring 0; in plain SEV a mirror that has run makes room for a new one.

        `anew` tells the helper that its vCPUs may have stopped in the middle of their work.
        """
        if self.mirror.exits and not self.es:
            self.mirror.vm.close()
            self.mirror = self.site.mirror()
        return self.mirror.start(self.mirror_slots(), anew=anew)

    def close(self) -> None:
        """End its guest and the mirror: it has moved, and nothing of it runs any more."""
        self.mirror.vm.close()
        self.vm.close()

    def mirror_slots(self) -> list[MirrorSlot]:
        """What the mirror sees."""
        view = View(self.helper, self.base, self.placement.topology, self.memory, self.helper_memory)
        return [*view.slots(self.regions), *self._shown]

    def show_state(self, memory: UserMemory, offset: int = 0) -> None:
        """Show the helper this page as one behind all RAM.

        On the source it is the VMSA of the guest's vCPU. That page is the kernel's, and Linux has no ioctl for this:
        the plans of 2020 wanted the kernel to map it. On the target it is where code in the guest awaits registers.
        """
        topology = self.placement.topology
        address = topology.gpa_end if self.helper.by_gpa else topology.ram_bytes
        self._shown = [MirrorSlot(self.helper.descriptor.window + address, PAGE_BYTES, memory, offset)]

    def state_requests(self) -> list[int]:
        """How requests name that page, if there is one."""
        return [slot.gpa - self.helper.descriptor.window for slot in self._shown]
