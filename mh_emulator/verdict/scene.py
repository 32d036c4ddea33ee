"""A platform with a guest, and a helper that is to run beside it.

The guest has RAM from GPA 0: data pages, then a place in which the firmware may have put the helper. Its owner knows
the helper, and gives it the transport key, wherever it lies, by LAUNCH_SECRET.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from mh_abi.image import HelperImage
from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.parts import Part
from mh_emulator.dram.process import Place
from mh_emulator.guest.copier import Copier
from mh_emulator.host.installed import Installed
from mh_emulator.host.launch import Launch
from mh_emulator.host.mirror import Mirror
from mh_emulator.host.ring import HelperStopped, Ring
from mh_emulator.host.site import Piece
from mh_emulator.host.view import MirrorSlot
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


@dataclass(frozen=True)
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

    @cached_property
    def code(self) -> bytes:
        """The helper as it is launched: all its private memory."""
        return self.helper.launched(self.base, self.part.c_bit)

    @property
    def pages(self) -> range:
        """Offsets of the helper's private pages."""
        return range(0, self.helper.ring_offset, PAGE_BYTES)

    @cached_property
    def digest(self) -> bytes:
        """By which an owner knows the helper."""
        return self.helper.digest(self.part.c_bit)

    def owner(self, policy: int) -> GuestOwner:
        """Who knows the helper and the transport key."""
        return GuestOwner(policy, helper=self.digest)


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
        pieces = [(Place(self.ram, 0), b"".join(self.data))]
        if program is not None:
            pieces.append((Place(self.ram, program.base), program.load(self.c_mask)))
        self.launch_helper(self.main, policy, place, pieces)

    def launch_helper(
        self, vm: Vm, policy: int, place: Place, others: Iterable[Piece] = (), *, handle: int = 0
    ) -> None:
        """Launch `vm` with the helper at `place` and then `others`, under the key of `handle` if there is one."""
        helper = self.installed(place)
        launch = Launch(self.platform, vm, self.cast.owner(policy), handle, self.log)
        for where, data in ((place, helper.code), *others):
            launch.load(where, data)
        launch.finish(self.cast.secret.table(), [helper.secret])

    def installed(self, place: Place) -> Installed:
        """The helper at `place`."""
        return Installed(self.cast.helper, place, self.cast.base, self.cast.part.c_bit)

    def mirror(self) -> Vm:
        """A mirror of the main VM, without slots."""
        vm = self.platform.create_vm()
        self.log.do("KVM_CAP_VM_COPY_ENC_CONTEXT_FROM", lambda: vm.copy_enc_context_from(self.main))
        return vm

    def start_helper(self, vm: Vm, place: Place) -> Ring:
        """Map all RAM and the helper at `place` into `vm`, start it there, and return its ring."""
        helper = self.cast.helper
        ram = MirrorSlot(helper.descriptor.window, self.cast.ram_bytes, self.ram, 0)
        own = MirrorSlot(self.cast.base, helper.memory_bytes, place.memory, place.offset)
        return Mirror(vm, self.installed(place)).start([ram, own])

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
