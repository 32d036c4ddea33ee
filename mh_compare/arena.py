"""Where attacks happen: a guest under one layout on a source and a target, made when first asked for."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import Part
from mh_builder.schemes.space import HELPER_VA, Start
from mh_compare import guest_os
from mh_compare.candidate import Candidate
from mh_compare.outcome import INSTRUCTIONS, Ended, by_exit
from mh_compare.trace import attend
from mh_emulator.cpu.registers import Registers
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.session import abort, begin, connect, greet
from mh_emulator.host.side import Side as HostSide
from mh_emulator.host.side import one_page
from mh_emulator.host.site import Site, prepare
from mh_emulator.kvm import Vm, VmType
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.owner import POLICY, POLICY_ES, GuestOwner
from mh_emulator.peer import Peer, SessionKeys
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

Op = abi.mh_op
Role = abi.mh_role
Status = abi.mh_status

PAGES = 6
"""Of RAM contents, half below and half above the PCI hole."""

TRANSPORT_KEY = bytes(range(100, 132))
SECRET = Secret(TRANSPORT_KEY, guest=bytes(range(16)))
"""Of an owner who takes plain SEV."""

SOURCE, TARGET = 1, 2
"""Seeds of the two platforms."""

_NAMES = {SOURCE: "source", TARGET: "target"}

_DRAM_BYTES = 24 << 20
"""Of a platform, beside room for the contents."""


class Side(HostSide):
    """A side whose helper an attacker lets run as he likes."""

    def run_on(self) -> None:
        """Let the helper's vCPU run, however it ends; raise `Ended` where that is not HLT in good state."""
        exit_ = self.machine.mirror.vcpu.run(INSTRUCTIONS)
        header = self.ring.header()
        fault = header.fault if header.state == abi.mh_ring_state.MH_RING_FAULT else None
        outcome = by_exit(exit_, fault)
        if outcome is not None:
            raise Ended(outcome)

    def step_until(self, start: int, end: int, stride: int = 1) -> Exit:
        """Run the helper in strides of instructions until RIP is in `start` to `end`, or something happens."""
        while True:
            exit_ = self.machine.mirror.vcpu.run(stride)
            if exit_.reason is not Reason.LIMIT or start <= self.machine.mirror.vcpu.get_registers().rip < end:
                return exit_


def export_entry(address: int) -> bytes:
    """The submission that exports one page, as it lies in the ring."""
    return one_page(Op.MH_OP_EXPORT, address).dumps(cookie=0)


@dataclass(frozen=True)
class Arena:
    """One layout on platforms of its part; it shares nothing with another arena."""

    candidate: Candidate

    @property
    def part(self) -> Part:
        """The processor."""
        return self.candidate.part

    @property
    def start(self) -> Start:
        """Plain SEV, or SEV-ES."""
        return self.candidate.start

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
        """What that owner gives its helpers: it takes no peer that is weaker than this guest."""
        protection = abi.mh_protection
        least = protection.MH_PROTECTION_SEV_ES if self.start is Start.ES else protection.MH_PROTECTION_SEV
        return replace(SECRET, protection=least.value)

    @property
    def helper(self) -> HelperImage:
        """The image."""
        return self.candidate.helper

    @cached_property
    def contents(self) -> bytes:
        """RAM contents without two equal pages."""
        return random.Random("contents").randbytes(PAGES * PAGE_BYTES)  # noqa: S311

    @cached_property
    def placement(self) -> Placement:
        """Where helper and contents lie."""
        return place(len(self.contents), self.helper)

    def ground(self, seed: int) -> tuple[Platform, Placement, HelperImage]:
        """What a machine is made of; another seed is another platform."""
        platform = Platform(self.part, _DRAM_BYTES + 2 * len(self.contents), seed)
        attend(platform, _NAMES.get(seed, f"platform {seed}"), self.helper)
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

    def boot_contents(self) -> Iterable[tuple[int, bytes]]:
        """(GPA, bytes) of the contents."""
        return [(part.gpa, self.contents[part.offset : part.offset + part.size]) for part in self.placement.contents]

    def side(self, machine: Machine) -> Side:
        """Start the helper of a launched guest."""
        return Side(machine, machine.start_helper())

    @cached_property
    def source(self) -> Side:
        """A guest with contents, its helper started."""
        return self.side(self.launched())

    @cached_property
    def target(self) -> Side:
        """An empty guest on another platform, its helper started; it has frames for all pages."""
        return self.empty(TARGET, self.secret)

    def empty(self, seed: int, secret: Secret) -> Side:
        """A guest without contents on a platform of its own, its helper started."""
        machine = self.launch(self.site(seed), contents=(), secret=secret)
        for page in self.ram:
            machine.memory.spa(page)
        return self.side(machine)

    def connect(self) -> tuple[Side, Side]:
        """Source and target in a session of their own."""
        for side in (self.source, self.target):
            abort(side.ring)
        connect(self.source.ring, self.target.ring)
        return self.source, self.target

    def exporting(self) -> Side:
        """A source in a session with a peer that is not there."""
        self.alone(self.source)
        return self.source

    def alone(self, source: Side) -> SessionKeys:
        """Start a session with a peer that is not there, only its hello. Return the keys, which no helper has."""
        abort(source.ring)
        own = greet(source.ring)
        peer = self.peer(own)
        begin(source.ring, Role.MH_ROLE_SOURCE, peer.hello)
        return peer.keys(Role.MH_ROLE_TARGET, own)

    def peer(self, hello: bytes, **fields: object) -> Peer:
        """Somebody with the owner's secret, and the properties of the helper with that `hello` but for `fields`."""
        known = abi.mh_hello(hello)
        own = {"addresses": known.addresses, "protection": known.protection}
        return Peer(self.secret, **(own | fields))

    @cached_property
    def ram(self) -> list[int]:
        """`ram_addr` of the pages with contents."""
        topology = self.placement.topology
        return [
            topology.ram_addr(part.gpa + at)
            for part in self.placement.contents
            for at in range(0, part.size, PAGE_BYTES)
        ]

    def address(self, page: int) -> int:
        """How requests name the page of that number."""
        return self.source.machine.request_address(self.ram[page])

    def plaintext(self, page: int) -> bytes:
        """What was launched in the page of that number."""
        return self.contents[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]

    def offset(self, symbol: str) -> int:
        """Bytes from the base of the image to a symbol of it; the image is public."""
        return self.candidate.image.symbol(symbol).value - HELPER_VA

    @property
    def key_offset(self) -> int:
        """Bytes from the base of the image to the transport key."""
        record = self.helper.descriptor.secret_offset + 2 * abi.MH_SECRET_ENTRY_BYTES
        return record + abi.mh_secret.fields["key"].offset
