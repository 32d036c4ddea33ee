"""Guests of plain SEV and SEV-ES, whose helper runs in a mirror."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import Start
from mh_compare import guest_os
from mh_compare.arena import NAMES, SECRET, SOURCE, TARGET, Arena, Side
from mh_compare.trace import attend
from mh_emulator.cpu.registers import Registers
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement
from mh_emulator.host.ring import Ring
from mh_emulator.host.site import Site, prepare
from mh_emulator.kvm import Vcpu, Vm, VmType
from mh_emulator.owner import POLICY, POLICY_ES, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

_DRAM_BYTES = 24 << 20
"""Of a platform, beside room for the contents."""


@dataclass
class MirrorSide(Side):
    """A guest, and the helper in its mirror."""

    machine: Machine
    ring: Ring

    @property
    def platform(self) -> Platform:
        """Where it runs."""
        return self.machine.platform

    @property
    def asid(self) -> int:
        """The ASID of the guest, and of its mirror."""
        return self.machine.asid

    @property
    def base(self) -> int:
        """Mirror GPA of the helper."""
        return self.machine.base

    @property
    def vcpu(self) -> Vcpu:
        """The mirror's."""
        return self.machine.mirror.vcpu

    @property
    def hides_ciphertext(self) -> bool:
        """Never: parts hide that of SNP guests alone."""
        return False

    def spa(self, ram_addr: int) -> int:
        """Where a byte of the guest's RAM is."""
        return self.machine.memory.spa(ram_addr)

    def helper_spa(self, offset: int) -> int:
        """Where a byte of the helper is."""
        return self.machine.helper_memory.spa(self.machine.helper_offset + offset)

    def peek(self, spa: int) -> bytes:
        """The page of `spa` as DRAM holds it."""
        dram = self.platform.dram
        dram.flush(spa & -PAGE_BYTES, PAGE_BYTES)
        return dram.peek_raw(spa)

    def poke(self, spa: int, data: bytes) -> None:
        """Write to DRAM."""
        dram = self.platform.dram
        dram.flush(spa & -PAGE_BYTES, PAGE_BYTES)
        dram.write_raw(spa, data)
        dram.flush(spa & -PAGE_BYTES, PAGE_BYTES)

    @property
    def entry(self) -> Registers:
        """With what a faithful host starts the helper."""
        return self.machine.mirror.helper.registers()

    def begin_again(self) -> None:
        """Let the helper begin at its entry, with its ring as it is."""
        self.machine.mirror.begin(0)

    def guest_pages(self) -> list[int]:
        """`ram_addr` of every page that has a frame, and is not the helper's."""
        return self.machine.guest_pages()

    def request_address(self, ram_addr: int) -> int:
        """How a request names that page."""
        return self.machine.request_address(ram_addr)


class MirrorArena(Arena[MirrorSide]):
    """A scheme whose helper runs in a mirror."""

    def create_vm(self, platform: Platform) -> Vm:
        """Make another VM of the arena's type."""
        return platform.create_vm(VmType.SEV_ES if self.start is Start.ES else VmType.DEFAULT)

    def init(self, vm: Vm) -> None:
        """Give a VM of that type an ASID."""
        if self.start is Start.ES:
            vm.sev_init2()
        else:
            vm.sev_init()

    @property
    def policy(self) -> int:
        """What a careful owner of such a guest demands."""
        return POLICY_ES if self.start is Start.ES else POLICY

    @property
    def secret(self) -> Secret:
        """What that owner gives its helpers."""
        protection = abi.mh_protection
        least = protection.MH_PROTECTION_SEV_ES if self.start is Start.ES else protection.MH_PROTECTION_SEV
        return replace(SECRET, protection=least.value)

    def ground(self, seed: int) -> tuple[Platform, Placement, HelperImage]:
        """What a machine is made of; another seed is another platform."""
        platform = Platform(self.part, _DRAM_BYTES + 2 * len(self.contents), seed)
        attend(platform, NAMES.get(seed, f"platform {seed}"), self.helper)
        return platform, self.placement, self.helper

    def site(self, seed: int = SOURCE) -> Site:
        """A faithful host's, with nothing launched yet."""
        return prepare(*self.ground(seed))

    def launch(
        self,
        site: Site,
        *,
        contents: Iterable[tuple[int, bytes]] | None = None,
        policy: int | None = None,
        secret: Secret | None = None,
    ) -> Machine:
        """Launch a guest there, by its owner; the helper is not started. Without a choice it is the arena's."""
        owner = GuestOwner(self.policy if policy is None else policy)
        loaded = self.boot_contents() if contents is None else contents
        return launch(site, owner, loaded, self.secret if secret is None else secret, self.guest)

    @property
    def guest(self) -> Registers | None:
        """With which registers the guest begins, where they are measured."""
        return guest_os.registers(self.part.c_bit) if self.start is Start.ES else None

    def launched(self, policy: int | None = None) -> Machine:
        """A guest launched on the source's platform by a faithful host."""
        return self.launch(self.site(), policy=policy)

    def side(self, machine: Machine) -> MirrorSide:
        """Start the helper of a launched guest."""
        return MirrorSide(machine, machine.start_helper())

    @cached_property
    def source(self) -> MirrorSide:
        """A guest with contents."""
        return self.side(self.launched())

    @cached_property
    def target(self) -> MirrorSide:
        """An empty guest on another platform."""
        return self.empty(TARGET, self.secret)

    def empty(self, seed: int, secret: Secret) -> MirrorSide:
        """A guest without contents on a platform of its own, its helper started."""
        machine = self.launch(self.site(seed), contents=(), secret=secret)
        for page in self.ram:
            machine.memory.spa(page)
        return self.side(machine)
