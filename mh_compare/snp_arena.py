"""SNP guests, whose helper runs at VMPL0 of the guest itself: there is no mirror."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NoReturn

from mh_abi import abi
from mh_builder.firmware.snp import SnpPage, pages_of
from mh_builder.paging import MIB, PAGE_BYTES
from mh_compare.arena import NAMES, SECRET, SOURCE, TARGET, Arena, Side
from mh_compare.candidate import OWNER
from mh_compare.guest_os import Kernel, registers
from mh_compare.outcome import Ended, by_exit
from mh_compare.trace import attend
from mh_emulator.attest.share import CHALLENGE_BYTES, Binding, seal
from mh_emulator.cpu.registers import Registers
from mh_emulator.host.attest import Messenger
from mh_emulator.host.ring import Ring
from mh_emulator.host.snp_machine import SnpMachine, first_vmsa, vmsa_gpa
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.secret import Secret
from mh_emulator.snp_platform import SnpPlatform

_DRAM_BYTES = 16 * MIB
"""Of a platform, at the least."""
_OWN_BYTES = 4 * MIB
"""For its secure processor, KVM, and what a guest has beside its contents and its helper.

Of these a page takes two frames: one of the guest's, one of the process that maps it.
"""
_LARGE = 2 * MIB
"""DRAM is made of these."""
_CHALLENGE = bytes(range(CHALLENGE_BYTES))


class Held(SnpMachine):
    """A guest in the hands of a host who wants to know why its helper stops."""

    def _stopped(self, exit_: Exit) -> NoReturn:
        """Raises `Ended` where the RMP says no, else `HelperStopped`."""
        outcome = by_exit(exit_, None)
        if exit_.reason is Reason.RMP_FAULT and outcome is not None:
            raise Ended(outcome)
        super()._stopped(exit_)

    def exchange(self, gpa: int, other: int) -> None:
        """Have the nested tables lead from each of two private pages to the other one."""
        pages = self.spa(gpa), self.spa(other)
        self.vm.remap(gpa, pages[1])
        self.vm.remap(other, pages[0])


@dataclass
class SnpSide(Side):
    """A guest, and the helper in it."""

    machine: Held
    ring: Ring
    pages: list[int] = field(default_factory=list)
    """`ram_addr` of the guest's own."""

    @property
    def platform(self) -> SnpPlatform:
        """Where it runs."""
        return self.machine.platform

    @property
    def asid(self) -> int:
        """The guest's ASID."""
        return self.machine.vm.asid

    @property
    def base(self) -> int:
        """GPA of the helper."""
        return self.machine.helper.base

    @property
    def vcpu(self) -> Vcpu:
        """A vCPU of VMPL0."""
        return self.machine.helpers[0]

    @property
    def hides_ciphertext(self) -> bool:
        """As the part does."""
        return self.platform.part.hides_ciphertext

    def write(self, gpa: int, data: bytes) -> None:
        """What the guest itself writes to its private memory."""
        for at in range(0, len(data), PAGE_BYTES):
            self.platform.dram.write_private(self.asid, self.machine.spa(gpa + at), data[at : at + PAGE_BYTES])

    def gpa(self, ram_addr: int) -> int:
        """Where the guest sees a byte of its RAM."""
        return self.machine.placement.topology.gpa(ram_addr)

    def spa(self, ram_addr: int) -> int:
        """Where a byte of the guest's RAM is."""
        return self.machine.spa(self.gpa(ram_addr))

    def helper_spa(self, offset: int) -> int:
        """Where a byte of the helper's private memory is."""
        return self.machine.spa(self.base + offset)

    def peek(self, spa: int) -> bytes:
        """The page of `spa` as the host reads it."""
        return self.platform.host.read(spa & -PAGE_BYTES, PAGE_BYTES)

    def poke(self, spa: int, data: bytes) -> None:
        """Write as the host's kernel does. Raises `HostFaultError`."""
        self.platform.host.write(spa, data)

    @property
    def entry(self) -> Registers:
        """With what a faithful host launches the helper."""
        return self.machine.helper.registers()

    def begin_again(self) -> None:
        """Set the registers of the helper's vCPU anew. Raises `KvmError`."""
        self.vcpu.set_registers(self.entry)
        self.machine.run_helper()

    def guest_pages(self) -> list[int]:
        """`ram_addr` of the guest's own pages."""
        return self.pages

    def request_address(self, ram_addr: int) -> int:
        """Requests name pages by GPA."""
        return self.gpa(ram_addr)


class SnpArena(Arena[SnpSide]):
    """The scheme whose helper runs in the guest."""

    @property
    def secret(self) -> Secret:
        """What its owner gives its helpers."""
        return replace(SECRET, protection=abi.mh_protection.MH_PROTECTION_SEV_SNP.value)

    @property
    def dram_bytes(self) -> int:
        """What a platform has."""
        used = 2 * (self.helper.memory_bytes + len(self.contents)) + _OWN_BYTES
        return max(_DRAM_BYTES, -(-used // _LARGE) * _LARGE)

    def server(self, seed: int) -> SnpPlatform:
        """A platform; another seed is another one. Raises `ValueError` for a part without SEV-SNP."""
        platform = SnpPlatform(self.part, self.dram_bytes, seed, hiding=self.part.hides_ciphertext)
        attend(platform, NAMES.get(seed, f"platform {seed}"), self.helper)
        return platform

    def launched(self, seed: int, guest: Sequence[SnpPage]) -> Held:
        """These pages and the helper, which has no record yet."""
        return Held(self.server(seed), self.placement, self.helper, guest)

    @cached_property
    def guest(self) -> list[SnpPage]:
        """What the owner has launched: the contents, a kernel that halts, and the page that becomes its VMSA."""
        state = first_vmsa(self.helper, registers(self.part.c_bit))
        return [*pages_of(self.boot_contents()), *pages_of(self.kernel.memory("hlt")), state]

    @property
    def kernel(self) -> Kernel:
        """The guest's."""
        return Kernel(self.helper, self.helper.descriptor.link_base, self.part.c_bit)

    @property
    def vmsa_gpa(self) -> int:
        """Where the VMSA of the guest's vCPU lies."""
        return vmsa_gpa(self.helper)

    def believed(self, machine: Held, role: abi.mh_role, secret: Secret) -> SnpSide:
        """Have the owner, who believes the report, give that helper its record."""
        messenger = Messenger(machine.rings[0], machine.platform.psp.chain, self.part.name)
        shown = messenger.show(role, _CHALLENGE)
        messenger.give(seal(secret.table(), Binding(role, shown.share, _CHALLENGE), OWNER))
        return SnpSide(machine, machine.rings[0], self.ram)

    @property
    def owned(self) -> list[int]:
        """GPAs of the guest's own pages, without its VMSA."""
        return [page.gpa for page in self.guest if page.gpa != self.vmsa_gpa]

    def start_source(self, seed: int = SOURCE, secret: Secret | None = None) -> SnpSide:
        """A guest with contents that may use them, its helper with its record; the guest's vCPU has not begun."""
        return self.begun(self.launched(seed, self.guest), secret)

    def begun(self, machine: Held, secret: Secret | None = None) -> SnpSide:
        """Give the helper of a launched guest its record, and have it lend the guest its pages."""
        side = self.believed(machine, abi.mh_role.MH_ROLE_SOURCE, secret or self.secret)
        machine.lend(self.owned)
        return side

    @cached_property
    def source(self) -> SnpSide:
        """A guest with contents."""
        return self.start_source()

    @cached_property
    def target(self) -> SnpSide:
        """Where a guest is to come, on another platform."""
        return self.empty(TARGET, self.secret)

    def empty(self, seed: int, secret: Secret) -> SnpSide:
        """A helper alone on a platform of its own, whose host knows what is to come."""
        side = self.believed(self.launched(seed, ()), abi.mh_role.MH_ROLE_TARGET, secret)
        pages = [*self.owned, vmsa_gpa(side.machine.image)]
        side.machine.expect(pages)
        for gpa in pages:
            side.machine.spa(gpa)
        return side
