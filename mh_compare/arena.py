"""Where attacks happen: a guest under one layout on a source and a target, made when first asked for."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from mh_builder.image.model import Image
from mh_builder.image.vmsa import write_vmsa
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import HELPER_VA, Start
from mh_compare.outcome import Ended, by_exit
from mh_emulator.exits import Exit, Reason
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import POLICY, POLICY_ES
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.ring import Request, Ring, Sealed
from mh_emulator.host.session import Batch, abort, begin, connect, greet
from mh_emulator.loader import HelperImage, parse_image
from mh_emulator.owner import GuestOwner
from mh_emulator.parts import Part
from mh_emulator.platform import Platform
from payload import abi

M = TypeVar("M", bound=Machine)

Op = abi.mh_op
Role = abi.mh_role
Status = abi.mh_status

PAGES = 6
"""Of RAM contents, half below and half above the PCI hole."""

TRANSPORT_KEY = bytes(range(100, 132))

SOURCE, TARGET = 1, 2
"""Seeds of the two platforms."""

INSTRUCTIONS = 1_000_000
"""After so many a helper that went astray is stopped."""

_DRAM_BYTES = 24 << 20
"""Of a platform, beside room for the contents."""


@dataclass(frozen=True)
class Candidate:
    """A scheme with its image."""

    name: str
    image: Image
    part: Part

    @cached_property
    def helper(self) -> HelperImage:
        """The image as a host gets it: under SEV-ES with the page that starts it."""
        is_es = self.image.space.options.start is Start.ES
        vmsa = write_vmsa(self.image, self.image.space.base, self.part.c_bit) if is_es else None
        return parse_image(self.image.data, vmsa)


@dataclass(frozen=True)
class Side:
    """A machine and its helper's ring."""

    machine: Machine
    ring: Ring

    def ask(self, op: abi.mh_op, address: int = 0, sealed: Sealed | None = None) -> abi.mh_status:
        """One request, for one page where it moves any, with `sealed` in the first slot; its status."""
        if sealed is not None:
            self.ring.put_sealed(0, sealed)
        return self.ring.serve([one_page(op, address)])[0].status

    def export(self, address: int) -> Sealed:
        """Export one page. Raises `HelperRefused`."""
        self.ring.ask("export", one_page(Op.MH_OP_EXPORT, address))
        return self.ring.take_sealed(0)

    def put(self, address: int, sealed: Sealed) -> abi.mh_status:
        """Import one packet; its status."""
        return self.ask(Op.MH_OP_IMPORT, address, sealed)

    def totals(self, op: abi.mh_op) -> Sealed:
        """The packet that ends an epoch or the session of a source. Raises `HelperRefused`."""
        self.ring.ask("totals", Request(op))
        return self.ring.take_sealed(0)

    def run_on(self) -> None:
        """Let the helper's vCPU run, however it ends; raise `Ended` where that is not HLT in good state."""
        leave = self.machine.helper_vcpu.run(INSTRUCTIONS)
        header = self.ring.header()
        fault = header.fault if header.state == abi.mh_ring_state.MH_RING_FAULT else None
        outcome = by_exit(leave, fault)
        if outcome is not None:
            raise Ended(outcome)

    def step_until(self, start: int, end: int, stride: int = 1) -> Exit:
        """Run the helper in strides of instructions until RIP is in `start` to `end`, or something happens."""
        while True:
            leave = self.machine.helper_vcpu.run(stride)
            if leave.reason is not Reason.LIMIT or start <= self.machine.helper_vcpu.get_registers().rip < end:
                return leave


def one_page(op: abi.mh_op, address: int) -> Request:
    """A request of that kind; export and import name the page at `address`."""
    if op in (Op.MH_OP_EXPORT, Op.MH_OP_IMPORT):
        return Batch(address=address, count=1).request(op)
    return Request(op, address=address)


def alone(source: Side) -> Side:
    """Start a session with a peer that is not there."""
    abort(source.ring)
    greet(source.ring)
    begin(source.ring, Role.MH_ROLE_SOURCE, bytes(32))
    return source


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
    def policy(self) -> int:
        """What a careful owner of such a guest demands."""
        return POLICY if self.helper.vmsa is None else POLICY_ES

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
        return Platform(self.part, _DRAM_BYTES + 2 * len(self.contents), seed), self.placement, self.helper

    def launch(self, machine: M, policy: int | None = None) -> M:
        """Launch a guest with the contents there, by its owner; the helper is not started."""
        machine.launch(GuestOwner(self.policy if policy is None else policy), self.boot_contents(), TRANSPORT_KEY)
        return machine

    def launched(self, policy: int | None = None) -> Machine:
        """The same on the source's platform, by a faithful host."""
        return self.launch(Machine(*self.ground(SOURCE)), policy)

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
        machine = Machine(*self.ground(TARGET))
        machine.launch(GuestOwner(self.policy), (), TRANSPORT_KEY)
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
        return alone(self.source)

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
        return int(self.helper.descriptor.secret_offset) + 2 * int(abi.MH_SECRET_ENTRY_BYTES)
