"""One side of a migration: a platform, the main VM of a guest, and the helper in its mirror."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from mh_builder.paging import PAGE_BYTES
from mh_emulator.exits import Exit, Reason
from mh_emulator.host.placement import Placement
from mh_emulator.host.ring import HelperStopped, Ring
from mh_emulator.host.topology import FOUR_GIB
from mh_emulator.kvm import hypercalls, msrs
from mh_emulator.loader import HelperImage
from mh_emulator.memory import UserMemory
from mh_emulator.owner import GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.registers import Registers
from payload import abi

MSR_KVM_MIGRATION_CONTROL = 0x4B56_4D08
MIGRATION_READY = 1 << 0

KVM_FEATURE_HC_MAP_GPA_RANGE = 1 << 16
KVM_FEATURE_MIGRATION_CONTROL = 1 << 17
"""EAX of CPUID leaf 4000_0001 (arch/x86/include/uapi/asm/kvm_para.h)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A memory slot of the mirror: `size` bytes of `memory` from `offset`, seen at `gpa`."""

    gpa: int
    size: int
    memory: UserMemory
    offset: int


class Machine:
    """A guest on `platform`: RAM in slots, launched under a key of its own, with the helper beside it.

    `base` is the mirror GPA at which the helper is to be seen; the image's own without it.
    """

    def __init__(self, platform: Platform, placement: Placement, helper: HelperImage, base: int | None = None) -> None:
        self.platform = platform
        self.placement = placement
        self.helper = helper
        self.base = int(helper.descriptor.link_base) if base is None else base
        self.memory = platform.memory(placement.topology.ram_bytes)
        self.vm = platform.create_vm()
        for number, block in enumerate(placement.topology.blocks):
            self.vm.set_user_memory_region(number, block.gpa, block.size, self.memory, block.ram_addr)
        self._set_helper_memory()
        self.exits = 0
        self.migration_allowed = False
        """What the guest last wrote to MSR_KVM_MIGRATION_CONTROL; Documentation/virt/kvm/x86/msr.rst."""
        self._watch_guest()

    def _watch_guest(self) -> None:
        """Offer the guest to say which pages it shares, and that it may be migrated: both reach the host only."""
        self.vm.kvm_features = KVM_FEATURE_HC_MAP_GPA_RANGE | KVM_FEATURE_MIGRATION_CONTROL
        self.vm.enable_exit_hypercall(1 << hypercalls.MAP_GPA_RANGE)
        self.vm.enable_user_space_msr(msrs.EXIT_FILTER)
        self.vm.set_msr_filter(frozenset({MSR_KVM_MIGRATION_CONTROL}))

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

    def launch(self, owner: GuestOwner, contents: Iterable[tuple[int, bytes]], transport_key: bytes) -> None:
        """Encrypt helper and `contents` ((GPA, bytes) each) in place; the owner checks, and gives its key.

        The helper's bytes are measured wherever they lie: for `isolated` that is LAUNCH_UPDATE_DATA on the
        owner's VM with pages that only the mirror maps.
        """
        part = self.platform.part
        code = self.helper.launched(self.base, part.c_bit)
        pieces = [(self.helper_memory, self.helper_offset, code)]
        pieces += [(self.memory, self.placement.topology.ram_addr(gpa), data) for gpa, data in contents]
        self.vm.sev_init()
        self.vm.sev_launch_start(owner.policy, owner.open_session(self.platform.credentials()))
        for memory, offset, data in pieces:
            memory.write_raw(offset, data)
            self.vm.sev_launch_update_data(memory, offset, len(data))
        measurement = self.vm.sev_launch_measure()
        packet = owner.wrap_secret(measurement, [data for _, _, data in pieces], secret_table(transport_key))
        secret = self.helper_offset + int(self.helper.descriptor.secret_offset)
        self.vm.sev_launch_secret(packet, self.helper_memory, secret)
        self.vm.sev_launch_finish()
        self.vcpu = self.vm.create_vcpu()

    def start_helper(self) -> Ring:
        """Make the mirror VM, start the helper in it, and return its ring."""
        ring_bytes = self.helper.memory_bytes - self.helper.ring_offset
        ring_offset = self.helper_offset + self.helper.ring_offset
        self.helper_memory.write_raw(ring_offset, bytes(ring_bytes))
        mirror = self.platform.create_vm()
        mirror.copy_enc_context_from(self.vm)
        for number, slot in enumerate(self.mirror_slots()):
            mirror.set_user_memory_region(number, slot.gpa, slot.size, slot.memory, slot.offset)
        self.mirror = mirror
        self.helper_vcpu = mirror.create_vcpu()
        self.helper_vcpu.set_registers(self.helper_registers())
        self.run_helper()
        return Ring(self.helper_memory, ring_offset, self.run_helper)

    def helper_registers(self) -> Registers:
        """What a faithful host starts the helper with."""
        descriptor = self.helper.descriptor
        cr3 = self.base + int(descriptor.cr3) - int(descriptor.link_base) | 1 << self.platform.part.c_bit
        return Registers.long_mode(descriptor.entry64, descriptor.stack64, cr3)

    def start_guest(self, entry: int, cr3: int, argument: int) -> None:
        """Set the guest's vCPU to `entry`, `argument` in RDI."""
        state = Registers.long_mode(entry, 0, cr3 | 1 << self.platform.part.c_bit)
        self.vcpu.set_registers(replace(state, rdi=argument))

    def run_guest(self, max_instructions: int | None = None) -> Exit:
        """KVM_RUN of the guest's vCPU; an access to MSR_KVM_MIGRATION_CONTROL is answered before it is returned."""
        leave = self.vcpu.run(max_instructions)
        if leave.reason is Reason.MSR:
            self._answer_migration_control(leave)
        return leave

    def _answer_migration_control(self, access: Exit) -> None:
        if not access.is_write:
            self.vcpu.answer(MIGRATION_READY if self.migration_allowed else 0)
        elif access.value & ~MIGRATION_READY:
            self.vcpu.answer(error=True)
        else:
            self.migration_allowed = bool(access.value)

    def run_helper(self) -> None:
        """KVM_RUN until the helper has nothing to do. Raises `HelperStopped` for any other exit."""
        leave = self.helper_vcpu.run()
        self.exits += 1
        if leave.reason is not Reason.HLT:
            raise HelperStopped(f"helper left with {leave}")

    def mirror_slots(self) -> list[Slot]:
        """What the mirror sees, as the image's scheme has it."""
        return list(_MIRROR_SLOTS[abi.mh_scheme(self.helper.descriptor.scheme)](self))

    def request_address(self, ram_addr: int) -> int:
        """How a request names the page at `ram_addr`."""
        if self.helper.descriptor.scheme == abi.mh_scheme.MH_SCHEME_ALIAS_GPA:
            return self.placement.topology.gpa(ram_addr)
        return ram_addr

    def guest_pages(self) -> list[int]:
        """`ram_addr` of every page that has a frame and is not the helper's."""
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


def secret_table(transport_key: bytes) -> bytes:
    """The launch secret in OVMF's format with one entry: the transport key."""
    return _guided(abi.MH_SECRET_TABLE_GUID, _guided(abi.MH_SECRET_KEY_GUID, transport_key))


def _guided(guid: str, data: bytes) -> bytes:
    size: int = abi.MH_SECRET_ENTRY_BYTES + len(data)
    return UUID(guid).bytes_le + size.to_bytes(4, "little") + data


def _whole_ram(machine: Machine, window: int) -> Iterator[Slot]:
    yield Slot(window, machine.memory.size, machine.memory, 0)


def _alias_gpa(machine: Machine) -> Iterator[Slot]:
    for block in machine.placement.topology.blocks:
        yield Slot(block.gpa, block.size, machine.memory, block.ram_addr)


def _alias_window(machine: Machine) -> Iterator[Slot]:
    for block in machine.placement.topology.blocks:
        if block.gpa < FOUR_GIB:
            yield Slot(block.gpa, block.size, machine.memory, block.ram_addr)
    yield from _whole_ram(machine, int(machine.helper.descriptor.window))


def _regions(machine: Machine) -> Iterator[Slot]:
    yield from _whole_ram(machine, int(machine.helper.descriptor.window))
    moved = machine.base - int(machine.helper.descriptor.link_base)
    for region in machine.helper.regions():
        offset = machine.placement.topology.ram_addr(region.main_gpa)
        yield Slot(region.mirror_gpa + moved, region.length, machine.memory, offset)


def _isolated(machine: Machine) -> Iterator[Slot]:
    yield from _whole_ram(machine, int(machine.helper.descriptor.window))
    yield Slot(machine.base, machine.helper_memory.size, machine.helper_memory, 0)


_MIRROR_SLOTS: dict[int, Callable[[Machine], Iterator[Slot]]] = {
    abi.mh_scheme.MH_SCHEME_ALIAS_GPA: _alias_gpa,
    abi.mh_scheme.MH_SCHEME_ALIAS_WINDOW: _alias_window,
    abi.mh_scheme.MH_SCHEME_REGIONS: _regions,
    abi.mh_scheme.MH_SCHEME_ISOLATED: _isolated,
}
