"""One side of a migration: a platform, the main VM of a guest, and the helper in its mirror."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import UserMemory
from mh_emulator.host import handover
from mh_emulator.host.consent import Consent
from mh_emulator.host.placement import Placement
from mh_emulator.host.ring import HelperStopped, Ring
from mh_emulator.host.view import MirrorSlot, View
from mh_emulator.host.watchdog import limited
from mh_emulator.kvm import Vcpu, Vm, VmType
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.owner import GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.psp.packet import Packet
from mh_emulator.secret import Secret

HELPER_SECONDS = 120.0
"""Many times what a full ring of the largest batches takes; a helper that goes on longer never halts."""


class Machine:
    """A guest on `platform`: RAM in slots, launched under a key of its own, with the helper beside it.

    `base` is the mirror GPA at which the helper is to be seen; the image's own without it. An image with a VMSA makes
    it an SEV-ES guest.
    """

    def __init__(self, platform: Platform, placement: Placement, helper: HelperImage, base: int | None = None) -> None:
        self.platform = platform
        self.placement = placement
        self.helper = helper
        self.base = helper.descriptor.link_base if base is None else base
        self.memory = platform.memory(placement.topology.ram_bytes)
        self.vm = self._create_vm()
        for number, block in enumerate(placement.topology.blocks):
            self.vm.set_user_memory_region(number, block.gpa, block.size, self.memory, block.ram_addr)
        self._set_helper_memory()
        self._mirror: Vm | None = None
        self.helper_vcpus: list[Vcpu] = []
        self.rings: list[Ring] = []
        self._exits = [0] * self.vcpus
        self.consent = Consent(self.vm, placement.topology, self._take_handover)
        self.regions = handover.image_regions(helper, self.base)
        """`regions`: where the mirror sees the helper; what the guest has handed over, once it has."""
        self._state: MirrorSlot | None = None

    @property
    def es(self) -> bool:
        """Whether registers are encrypted."""
        return self.helper.vmsa is not None

    def _create_vm(self) -> Vm:
        return self.platform.create_vm(VmType.SEV_ES if self.es else VmType.DEFAULT)

    def _take_handover(self) -> None:
        """The guest allows its migration for the first time: look where its helper lies, once."""
        if self.helper.hands_over:
            page = self.helper_memory.read_raw(self.helper_offset + self.helper.ring_offset, len(abi.mh_handover))
            self.regions = handover.read(page, self._limits())

    def _limits(self) -> handover.Limits:
        window = self.helper.descriptor.window
        ram = range(window, window + self.helper.descriptor.ram_limit)
        return handover.Limits(self.placement.topology, ram, self.platform.part.physical_bits)

    @property
    def vcpus(self) -> int:
        """vCPUs of the helper, each with a ring."""
        return self.helper.descriptor.ring_count

    @property
    def exits(self) -> int:
        """KVM_RUN calls of the helper's vCPUs."""
        return sum(self._exits)

    @property
    def mirror(self) -> Vm:
        """The VM of the helper, once it was started."""
        if self._mirror is None:
            raise RuntimeError("no helper was started")
        return self._mirror

    @property
    def helper_vcpu(self) -> Vcpu:
        """The vCPU of ring 0."""
        return self.helper_vcpus[0]

    def _set_helper_memory(self) -> None:
        if self.helper.home is None:
            self.helper_memory = self.platform.memory(self.helper.memory_bytes)
            self.helper_offset = 0
        else:
            self.helper_memory = self.memory
            self.helper_offset = self.placement.topology.ram_addr(self.helper.home)

    @property
    def asid(self) -> int:
        """The ASID of the guest, and of its mirror."""
        return self.vm.asid

    def launch(
        self,
        owner: GuestOwner,
        contents: Iterable[tuple[int, bytes]],
        secret: Secret,
        guest: Registers | None = None,
    ) -> None:
        """Encrypt helper and `contents` ((GPA, bytes) each) in place; the owner checks, and gives its secret.

        The helper's bytes are measured wherever they lie: for `isolated` that is LAUNCH_UPDATE_DATA on the
        owner's VM with pages that only the mirror maps. Under SEV-ES the mirror's vCPU is measured too, and so is
        the guest's, which begins with the registers `guest`.
        """
        pieces = self.launched_helper()
        pieces += [(self.memory, self.placement.topology.ram_addr(gpa), data) for gpa, data in contents]
        if self.es:
            self.vm.sev_init2()
        else:
            self.vm.sev_init()
        self.vm.sev_launch_start(owner.policy, owner.open_session(self.platform.credentials()))
        for memory, offset, data in pieces:
            memory.write_raw(offset, data)
            self.vm.sev_launch_update_data(memory, offset, len(data))
        if guest is not None or not self.es:
            self.vcpu = self.vm.create_vcpu()
        if guest is not None:
            self.vcpu.set_registers(guest)
        vmsas = self._launch_vmsas(guest) if self.es else []
        measurement = self.vm.sev_launch_measure()
        packet = owner.wrap_secret(measurement, [*(data for _, _, data in pieces), *vmsas], secret.table())
        self.give_secret(packet)
        self.vm.sev_launch_finish()

    def give_secret(self, packet: Packet) -> None:
        """Have the secure processor put the owner's secret into the helper's page for it."""
        place = self.helper_offset + self.helper.descriptor.secret_offset
        self.vm.sev_launch_secret(packet, self.helper_memory, place)

    def _launch_vmsas(self, guest: Registers | None) -> list[bytes]:
        """Make the mirror, for no VMSA can be made later; return the pages that the owner has to expect."""
        self._make_mirror()
        self.mirror.sev_launch_update_vmsa()
        self.vm.sev_launch_update_vmsa()
        states = [self.helper_registers(number) for number in range(self.vcpus)]
        states += [] if guest is None else [guest]
        return [vmsa.make(state, fpu=True) for state in states]

    def _make_mirror(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
        self._mirror = self._create_vm()
        self._mirror.copy_enc_context_from(self.vm)
        self.helper_vcpus = [self._mirror.create_vcpu() for _ in range(self.vcpus)]
        for number, vcpu in enumerate(self.helper_vcpus):
            vcpu.set_registers(self.helper_registers(number))

    def launched_helper(self) -> list[tuple[UserMemory, int, bytes]]:
        """(memory, offset, bytes) of the helper that are encrypted at launch."""
        code = self.helper.launched(self.base, self.platform.part.c_bit)
        return [(self.helper_memory, self.helper_offset, code)]

    def start_helper(self, *, anew: bool = False) -> Ring:
        """Make the mirror VM, unless the launch did, and its slots; start the helper in it, and return ring 0.

        `rings` has all. An earlier mirror goes, where the launch did not make it; `anew` tells the helper that its
        vCPUs may have stopped in the middle of their work.
        """
        ring_bytes = self.helper.memory_bytes - self.helper.ring_offset
        ring_offset = self.helper_offset + self.helper.ring_offset
        self.helper_memory.write_raw(ring_offset, bytes(ring_bytes))
        if not self.es:
            self._make_mirror()
        for number, slot in enumerate(self.mirror_slots()):
            self.mirror.set_user_memory_region(number, slot.gpa, slot.size, slot.memory, slot.offset)
        self.rings = [self._ring(number) for number in range(self.vcpus)]
        for number in range(self.vcpus):
            if self.es:
                self.run_helper(number)
            else:
                self.start_vcpu(number, anew=anew)
        return self.rings[0]

    def _ring(self, number: int) -> Ring:
        offset = self.helper_offset + self.helper.ring_offset + number * self.helper.descriptor.ring_stride
        return Ring(self.helper_memory, offset, partial(self.run_helper, number))

    def restart(self, number: int, *, anew: bool = False) -> Ring:
        """Let a vCPU of the helper begin at its entry again, with its ring as it is; return the ring, read afresh."""
        self.rings[number] = self._ring(number)
        self.start_vcpu(number, anew=anew)
        return self.rings[number]

    def start_vcpu(self, number: int, *, anew: bool = False) -> None:
        """Let a vCPU of the helper begin at its entry."""
        registers = self.helper_registers(number)
        edi = registers.rdi | (abi.MH_START_ANEW if anew else 0)
        self.helper_vcpus[number].set_registers(replace(registers, rdi=edi))
        self.run_helper(number)

    def at_once(self) -> AbstractContextManager[None]:
        """For a block in which several vCPUs of the helper run in threads."""
        return self.platform.dram.bus.at_once()

    def helper_registers(self, number: int = 0) -> Registers:
        """What a faithful host starts vCPU `number` of the helper with."""
        descriptor = self.helper.descriptor
        cr3 = self.base + descriptor.cr3 - descriptor.link_base | 1 << self.platform.part.c_bit
        stack = descriptor.stack64 + number * descriptor.vcpu_stride
        if self.helper.vmsa is not None:
            return replace(vmsa.load(self.helper.vmsa), cr3=cr3, rsp=stack, rdi=number)
        return replace(Registers.long_mode(descriptor.entry64, stack, cr3), rdi=number)

    def run_guest(self, max_instructions: int | None = None) -> Exit:
        """KVM_RUN of the guest's vCPU, until something else than a hypercall; raise `HandoverError`."""
        while True:
            exit_ = self.vcpu.run(max_instructions)
            self.consent.serve(self.vcpu, exit_)
            if exit_.reason is not Reason.HYPERCALL:
                return exit_

    def show_state(self, memory: UserMemory, offset: int = 0) -> None:
        """Show the helper this page as one behind all RAM.

        On the source it is the VMSA of the guest's vCPU. That page is the kernel's, and Linux has no ioctl for this:
        the plans of 2020 wanted the kernel to map it. On the target it is where code in the guest awaits registers.
        """
        topology = self.placement.topology
        address = topology.gpa_end if self.helper.by_gpa else topology.ram_bytes
        self._state = MirrorSlot(self.helper.descriptor.window + address, PAGE_BYTES, memory, offset)

    def state_requests(self) -> list[int]:
        """How requests name that page, if there is one."""
        return [] if self._state is None else [self._state.gpa - self.helper.descriptor.window]

    def run_helper(self, number: int = 0, seconds: float = HELPER_SECONDS) -> None:
        """KVM_RUN of a vCPU until it has nothing to do. Raises `HelperStopped` for any other exit."""
        vcpu = self.helper_vcpus[number]
        exit_ = self.enter(vcpu, seconds)
        self._exits[number] += 1
        if exit_.reason is Reason.LIMIT:
            raise HelperStopped(f"helper has not halted after {seconds:g} seconds")
        if exit_.reason is not Reason.HLT:
            raise HelperStopped(f"helper left with {exit_}")

    def enter(self, vcpu: Vcpu, seconds: float) -> Exit:
        """KVM_RUN of a helper's vCPU, given up after that many seconds."""
        with limited(seconds, vcpu.kick):
            return vcpu.run()

    def mirror_slots(self) -> list[MirrorSlot]:
        """What the mirror sees."""
        view = View(self.helper, self.base, self.placement.topology, self.memory, self.helper_memory)
        return [*view.slots(self.regions), *([] if self._state is None else [self._state])]

    def request_address(self, ram_addr: int) -> int:
        """How a request names the page at `ram_addr`."""
        return self.placement.topology.gpa(ram_addr) if self.helper.by_gpa else ram_addr

    def guest_pages(self) -> list[int]:
        """`ram_addr` of every page that has a frame, is not shared and not the helper's."""
        return [page for page in self._own_pages() if page not in self.consent.shared]

    def shared_pages(self) -> list[int]:
        """`ram_addr` of every page that has a frame, is shared with the host and not the helper's."""
        return [page for page in self._own_pages() if page in self.consent.shared]

    def _own_pages(self) -> list[int]:
        start = self.helper_offset if self.helper_memory is self.memory else 0
        end = start + self.helper.memory_bytes if self.helper_memory is self.memory else 0
        return [page for page in self.memory.populated() if not start <= page < end]

    def read_guest(self, ram_addr: int, size: int = PAGE_BYTES) -> bytes:
        """What the guest sees at `ram_addr`, within one page."""
        return self.platform.dram.read_private(self.asid, self.memory.spa(ram_addr), size)

    def read_helper(self, offset: int, size: int) -> bytes:
        """What the helper sees in its private memory, `offset` bytes from its base, within one page."""
        return self.platform.dram.read_private(self.asid, self.helper_memory.spa(self.helper_offset + offset), size)

    def write_helper(self, offset: int, data: bytes) -> None:
        """Change the helper's private memory, within one page, as only the holder of the memory key can."""
        self.platform.dram.write_private(self.asid, self.helper_memory.spa(self.helper_offset + offset), data)
