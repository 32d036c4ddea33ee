"""Guests with a mirror, under plain SEV and under SEV-ES."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emulator_tests.fuzz.ground import PAGE, PAGES, RINGS, Ground, contents
from emulator_tests.fuzz.saved import Saved
from emulator_tests.helper.conftest import SECRET, boot_contents
from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import hosted
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start
from mh_emulator.cpu.mmu import VECTOR_VC
from mh_emulator.cpu.rdrand import Generator, Repeating
from mh_emulator.dram.dram import Dram
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import place
from mh_emulator.host.ring import Ring
from mh_emulator.host.site import prepare
from mh_emulator.kvm import EsVcpu, Vcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.owner import POLICY, POLICY_ES, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

RAM_LIMIT = 1 << 30
_PLAIN = Options(vcpus=RINGS, ram_limit=RAM_LIMIT)
_OPTIONS = {"plain": _PLAIN, "strict": replace(_PLAIN, strict=True), "es": replace(_PLAIN, start=Start.ES)}
_STATE_SLOT = 9
_MMIO = 0x400
"""Error code of #VC: a nested page fault."""


def image_of(kind: str) -> Image:
    """The helper, for little RAM."""
    return build_helper("regions", _OPTIONS[kind])


def secret_of(kind: str) -> Secret:
    """What its owner gives."""
    protections = abi.mh_protection
    protection = protections.MH_PROTECTION_SEV_ES if kind == "es" else protections.MH_PROTECTION_SEV
    flags = abi.MH_OWNER_STRICT if kind == "strict" else 0
    return replace(SECRET, flags=flags, protection=protection.value)


class MirrorGround(Ground):
    """A guest with contents in its RAM, and a mirror with the helper, which waits at its rings."""

    def __init__(self, kind: str) -> None:
        super().__init__(image_of(kind), secret_of(kind))
        self.restarts = kind != "es"
        self.code = "mirror, es" if kind == "es" else "mirror"
        self._machine = self._launched(kind)
        for vcpu in self.vcpus:
            self.watch(vcpu)
        self._machine.start_helper()
        self._state = self._machine.platform.memory(PAGE)
        gpa = (self._machine.base + self.helper.descriptor.vmsa_offset) % (1 << 64)
        self._machine.mirror.vm.set_user_memory_region(_STATE_SLOT, gpa, PAGE, self._state, 0)
        self.rings = self._machine.mirror.rings

    def _launched(self, kind: str) -> Machine:
        part = PARTS["milan"]
        helper = hosted(self.image, part.c_bit)
        placement = place(PAGES * PAGE, helper)
        platform = Platform(part, (20 if kind == "strict" else 12) << 20, 1)
        platform.generator = Repeating(1)
        site = prepare(platform, placement, helper)
        site = replace(site, enter=lambda vcpu, _seconds: self.enter(vcpu))
        owner = GuestOwner(POLICY_ES if kind == "es" else POLICY)
        return launch(site, owner, boot_contents(placement, contents()), self.secret)

    @property
    def helper(self) -> HelperImage:
        """The image, with a VMSA under SEV-ES."""
        return self._machine.helper

    @property
    def dram(self) -> Dram:
        """Memory, as it is stored."""
        return self._machine.platform.dram

    @property
    def generator(self) -> Generator:
        """Behind RDRAND."""
        return self._machine.platform.generator

    @property
    def vcpus(self) -> Sequence[Vcpu]:
        """The mirror's."""
        return self._machine.mirror.vcpus

    @property
    def ram_bytes(self) -> int:
        """How much RAM the guest has."""
        return self._machine.placement.topology.ram_bytes

    @property
    def base(self) -> int:
        """GPA of the helper in the mirror."""
        return self._machine.base

    def brings_about(self, exit_: Exit) -> bool:
        """Where the host has put no RAM."""
        return self.restarts and exit_.reason is Reason.MMIO and self.is_without_ram(exit_.gpa)

    def provokes(self, fault: abi.mh_fault) -> bool:
        """The same under SEV-ES: KVM makes it MMIO, which is #VC."""
        return not self.restarts and (fault.vector, fault.error_code) == (VECTOR_VC, _MMIO)

    def ready(self, role: int) -> None:
        """It is."""

    def at_peace(self) -> None:
        """Nothing that lasts is done to a mirror."""

    def saved(self) -> Saved:
        """The machine as it is now."""
        vmsas = [vcpu.vmsa for vcpu in self.vcpus if isinstance(vcpu, EsVcpu)]
        return Saved.of(self._machine, (self._machine.memory, self._state, *vmsas))

    def ring(self, number: int) -> Ring:
        """A ring with nothing submitted."""
        return self._machine.mirror._ring(number)

    def begin(self, number: int, edi: int, **registers: int) -> None:
        """Put a vCPU to its entry with that EDI, and other `registers`."""
        state = self._machine.mirror.helper.registers(number).with_changes(rdi=edi, **registers)
        self.vcpus[number].set_registers(state)

    def own_pages(self) -> list[int]:
        """Those of RAM that have a frame; requests name them by `ram_addr`."""
        return self._machine.guest_pages()

    def read(self, page: int) -> bytes:
        """What the guest sees there."""
        return self._machine.read_guest(page)

    def write(self, page: int, data: bytes) -> None:
        """What the guest writes there."""
        self.dram.write_private(self._machine.asid, self._machine.memory.spa(page), data)

    def is_given(self, page: int) -> bool:
        """Whether it is of zeros as it is stored."""
        return self._machine.peek_pages([page]) == bytes(PAGE)

    @property
    def home(self) -> int:
        """Where the helper lies in RAM."""
        return self._machine.helper_offset

    def spa(self, offset: int) -> int:
        """Of the helper's memory."""
        return self._machine.memory.spa(self.home + offset)

    def read_helper(self, offset: int, size: int) -> bytes:
        """What the helper sees there."""
        return self._machine.read_helper(offset, size)
