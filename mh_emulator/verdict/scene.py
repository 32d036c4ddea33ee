"""A platform with a guest, and a helper that is to run beside it.

The guest has RAM from GPA 0: data pages, then a place in which the firmware may have put the helper. Its owner knows
the helper, and gives it the transport key, wherever it lies, by LAUNCH_SECRET.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mh_abi.image import HelperImage
from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.parts import Part
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import UserMemory
from mh_emulator.guest.copier import Copier
from mh_emulator.host.ring import HelperStopped, Ring
from mh_emulator.kvm import Vcpu, Vm
from mh_emulator.kvm.exits import Reason
from mh_emulator.owner import GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret
from mh_emulator.verdict.steps import Log

DATA_PAGES = 4
INSTALL = MIB
"""`ram_addr` and GPA of the helper where the firmware has put it into the guest's memory."""
PROGRAM = 0x1_0000
"""GPA of the program that a guest may need."""


@dataclass(frozen=True, slots=True)
class Place:
    """Memory of the host process, from `offset`."""

    memory: UserMemory
    offset: int

    def at(self, distance: int) -> Place:
        """The place `distance` bytes further."""
        return Place(self.memory, self.offset + distance)

    def spa(self, distance: int) -> int:
        """System physical address `distance` bytes further."""
        return self.memory.spa(self.offset + distance)


@dataclass(frozen=True, slots=True)
class Cast:
    """What all scenes of a run have in common."""

    part: Part
    helper: HelperImage
    secret: Secret

    @property
    def base(self) -> int:
        """Mirror GPA of the helper."""
        return self.helper.descriptor.link_base

    @property
    def ram_bytes(self) -> int:
        """RAM of a guest that has room for the helper."""
        return INSTALL + self.helper.memory_bytes

    @property
    def code(self) -> bytes:
        """The helper as it is launched: all its private memory."""
        return self.helper.launched(self.base, self.part.c_bit)

    @property
    def pages(self) -> range:
        """Offsets of the helper's private pages."""
        return range(0, self.helper.ring_offset, PAGE_BYTES)

    def owner(self, policy: int) -> GuestOwner:
        """Who knows the helper and the transport key."""
        return GuestOwner(policy, helper=self.helper.digest(self.part.c_bit))


class Scene:
    """One platform, and the main VM on it."""

    def __init__(self, cast: Cast, log: Log, seed: int) -> None:
        self.cast = cast
        self.log = log
        self.platform = Platform(cast.part, 4 * cast.ram_bytes, seed)
        self.ram = self.platform.memory(cast.ram_bytes)
        self.main = self.platform.create_vm()
        self.main.set_user_memory_region(0, 0, cast.ram_bytes, self.ram, 0)
        rng = random.Random(f"data {seed}")  # noqa: S311
        self.data = [rng.randbytes(PAGE_BYTES) for _ in range(DATA_PAGES)]

    @property
    def c_mask(self) -> int:
        """The C-bit of the part."""
        return 1 << self.cast.part.c_bit

    @property
    def in_guest(self) -> Place:
        """The helper's place in the guest's memory."""
        return Place(self.ram, INSTALL)

    def private_place(self) -> Place:
        """Memory that is in no slot of the main VM; room for the ring too."""
        return Place(self.platform.memory(self.cast.helper.memory_bytes), 0)

    def launch(self, policy: int, place: Place, *, program: Copier | None = None) -> None:
        """Launch the main VM with the helper at `place`, and let the owner give it its key."""
        do, main = self.log.do, self.main
        pieces = [(place, self.cast.code), (Place(self.ram, 0), b"".join(self.data))]
        if program is not None:
            pieces.append((Place(self.ram, program.base), program.load(self.c_mask)))
        do("KVM_SEV_INIT", main.sev_init)
        self.launch_contents(main, policy, 0, pieces)
        do("KVM_SEV_LAUNCH_FINISH", main.sev_launch_finish)

    def launch_contents(self, vm: Vm, policy: int, handle: int, pieces: list[tuple[Place, bytes]]) -> None:
        """LAUNCH_START with the key of `handle`, up to the secret that goes into the first of `pieces`."""
        do, owner = self.log.do, self.cast.owner(policy)
        session = owner.open_session(self.platform.credentials())
        do("KVM_SEV_LAUNCH_START", lambda: vm.sev_launch_start(policy, session, handle))
        for place, data in pieces:
            place.memory.write_raw(place.offset, data)
            self.launch_update(vm, place, len(data))
        measured = do("KVM_SEV_LAUNCH_MEASURE", vm.sev_launch_measure)
        packet = owner.wrap_secret(measured, [data for _, data in pieces], self.cast.secret.table())
        place = pieces[0][0]
        secret = place.offset + self.cast.helper.descriptor.secret_offset
        do("KVM_SEV_LAUNCH_SECRET", lambda: vm.sev_launch_secret(packet, place.memory, secret))

    def launch_update(self, vm: Vm, place: Place, size: int) -> None:
        """LAUNCH_UPDATE_DATA: of whatever memory of the process."""
        call = lambda: vm.sev_launch_update_data(place.memory, place.offset, size)  # noqa: E731
        self.log.do("KVM_SEV_LAUNCH_UPDATE_DATA", call)

    def mirror(self) -> Vm:
        """A mirror of the main VM, without slots."""
        vm = self.platform.create_vm()
        self.log.do("KVM_CAP_VM_COPY_ENC_CONTEXT_FROM", lambda: vm.copy_enc_context_from(self.main))
        return vm

    def start_helper(self, vm: Vm, place: Place) -> Ring:
        """Map all RAM and the helper at `place` into `vm`, start it there, and return its ring."""
        helper, base = self.cast.helper, self.cast.base
        ring = place.offset + helper.ring_offset
        place.memory.write_raw(ring, bytes(helper.memory_bytes - helper.ring_offset))
        vm.set_user_memory_region(0, helper.descriptor.window, self.cast.ram_bytes, self.ram, 0)
        vm.set_user_memory_region(1, base, helper.memory_bytes, place.memory, place.offset)
        vcpu = vm.create_vcpu()
        descriptor = helper.descriptor
        cr3 = base + descriptor.cr3 - descriptor.link_base | self.c_mask
        vcpu.set_registers(Registers.long_mode(descriptor.entry64, descriptor.stack64, cr3))
        run_to_halt(vcpu)
        return Ring(place.memory, ring, lambda: run_to_halt(vcpu))

    def guest_writes(self, page: int) -> None:
        """Let the main VM's vCPU change the data page of that number: caches may be the only place that knows."""
        self.data[page] = self.data[page][::-1]
        self.platform.dram.write_private(self.main.asid, self.ram.spa(page * PAGE_BYTES), self.data[page])

    def guest_sees(self, page: int) -> bytes:
        """What the main VM's vCPUs see in the data page of that number."""
        return self.platform.dram.read_private(self.main.asid, self.ram.spa(page * PAGE_BYTES), PAGE_BYTES)

    def reachable_pages(self, place: Place) -> int:
        """How many of the helper's private pages at `place` are in a slot of the main VM."""
        frames = {self.main.spa(gpa) for gpa in range(0, 2 * self.cast.ram_bytes, PAGE_BYTES)}
        return sum(place.spa(page) in frames for page in self.cast.pages)


def run_to_halt(vcpu: Vcpu) -> None:
    """KVM_RUN until HLT. Raises `HelperStopped` for any other exit."""
    exit_ = vcpu.run()
    if exit_.reason is not Reason.HLT:
        raise HelperStopped(f"vCPU left with {exit_}")
