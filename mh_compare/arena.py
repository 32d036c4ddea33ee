"""Where attacks happen: a guest under one layout on a source and a target, made when first asked for."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, Protocol, Self, TypeVar

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import Part
from mh_builder.schemes.space import HELPER_VA, Start
from mh_compare.candidate import Candidate
from mh_compare.outcome import INSTRUCTIONS, Ended, by_exit
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.dram import Dram
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.ring import Ring
from mh_emulator.host.session import abort, begin, connect, greet
from mh_emulator.host.side import Asker, one_page
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.peer import Peer, SessionKeys
from mh_emulator.secret import Secret

Op = abi.mh_op
Role = abi.mh_role
Status = abi.mh_status

PAGES = 6
"""Of RAM contents, half below and half above the PCI hole."""

CONTENTS = random.Random("contents").randbytes(PAGES * PAGE_BYTES)  # noqa: S311
"""No two pages are equal."""

TRANSPORT_KEY = bytes(range(100, 132))
SECRET = Secret(TRANSPORT_KEY, guest=bytes(range(16)))
"""Of an owner who takes plain SEV."""

SOURCE, TARGET = 1, 2
"""Seeds of the two platforms."""

NAMES = {SOURCE: "source", TARGET: "target"}


class Server(Protocol):
    """A platform, as far as attacks reach into it."""

    @property
    def dram(self) -> Dram:
        """Its memory."""

    @property
    def generator(self) -> Generator:
        """Behind RDRAND."""


class Side(Asker, ABC):
    """A started helper, whose host is an attacker: he lets it run as he likes, and has all memory as hosts have it."""

    ring: Ring

    @property
    @abstractmethod
    def platform(self) -> Server:
        """Where it runs."""

    @property
    @abstractmethod
    def asid(self) -> int:
        """The guest's ASID."""

    @property
    @abstractmethod
    def base(self) -> int:
        """GPA of the helper where it runs."""

    @property
    @abstractmethod
    def vcpu(self) -> Vcpu:
        """The helper's, of ring 0."""

    @property
    @abstractmethod
    def hides_ciphertext(self) -> bool:
        """Whether `peek` shows nothing of private pages."""

    @abstractmethod
    def spa(self, ram_addr: int) -> int:
        """Where a byte of the guest's RAM is."""

    @abstractmethod
    def helper_spa(self, offset: int) -> int:
        """Where a byte of the helper is."""

    @abstractmethod
    def peek(self, spa: int) -> bytes:
        """The page of `spa` as its host reads it once caches are flushed: what the guest wrote last is in it."""

    @abstractmethod
    def poke(self, spa: int, data: bytes) -> None:
        """Write as its host does, past all encryption, and past what caches may still hold. Raises `HostFaultError`."""

    @property
    @abstractmethod
    def entry(self) -> Registers:
        """With what a faithful host starts the helper."""

    @abstractmethod
    def begin_again(self) -> None:
        """Let the helper begin at its entry, with its ring as it is. Raises `KvmError`."""

    @abstractmethod
    def guest_pages(self) -> list[int]:
        """`ram_addr` of the guest's own pages."""

    @abstractmethod
    def request_address(self, ram_addr: int) -> int:
        """How a request names that page."""

    def read_guest(self, ram_addr: int, size: int = PAGE_BYTES) -> bytes:
        """What the guest sees, within one page."""
        return self.platform.dram.read_private(self.asid, self.spa(ram_addr), size)

    def write_guest(self, ram_addr: int, data: bytes) -> None:
        """What the guest itself writes, within one page."""
        self.platform.dram.write_private(self.asid, self.spa(ram_addr), data)

    def read_helper(self, offset: int, size: int) -> bytes:
        """What the helper sees of itself, within one page."""
        return self.platform.dram.read_private(self.asid, self.helper_spa(offset), size)

    def helper_pages(self, offsets: Iterable[int]) -> bytes:
        """What the helper sees of the pages of itself at these offsets, one after the other."""
        return self.platform.dram.read_pages(self.asid, [self.helper_spa(offset) for offset in offsets])

    def run_on(self) -> None:
        """Let the helper's vCPU run, however it ends; raise `Ended` where that is not HLT in good state."""
        exit_ = self.vcpu.run(INSTRUCTIONS)
        header = self.ring.header()
        fault = header.fault if header.state == abi.mh_ring_state.MH_RING_FAULT else None
        outcome = by_exit(exit_, fault)
        if outcome is not None:
            raise Ended(outcome)

    def step_until(self, start: int, end: int, stride: int = 1) -> Exit:
        """Run the helper in strides of instructions until RIP is in `start` to `end`, or something happens."""
        while True:
            exit_ = self.vcpu.run(stride)
            if exit_.reason is not Reason.LIMIT or start <= self.vcpu.get_registers().rip < end:
                return exit_


def export_entry(address: int) -> bytes:
    """The submission that exports one page, as it lies in the ring."""
    return one_page(Op.MH_OP_EXPORT, address).dumps(cookie=0)


AnySide_co = TypeVar("AnySide_co", bound=Side, covariant=True)
Same = TypeVar("Same", bound="Arena[Side]")


@dataclass(frozen=True)
class Arena(ABC, Generic[AnySide_co]):
    """One layout on platforms of its part; it shares nothing with another arena."""

    candidate: Candidate
    contents: bytes = CONTENTS
    """Of the guest's RAM."""

    @property
    def part(self) -> Part:
        """The processor."""
        return self.candidate.part

    @property
    def start(self) -> Start:
        """Plain SEV, SEV-ES, or SNP."""
        return self.candidate.start

    @property
    def helper(self) -> HelperImage:
        """The image."""
        return self.candidate.helper

    @property
    @abstractmethod
    def secret(self) -> Secret:
        """What a careful owner gives its helpers: it takes no peer that is weaker than this guest."""

    @property
    @abstractmethod
    def source(self) -> AnySide_co:
        """A guest with contents, its helper started."""

    @property
    @abstractmethod
    def target(self) -> AnySide_co:
        """An empty guest on another platform, its helper started; it has frames for all pages."""

    @abstractmethod
    def empty(self, seed: int, secret: Secret) -> AnySide_co:
        """A guest without contents on a platform of its own, its helper started."""

    def fresh(self, contents: bytes | None = None) -> Self:
        """A new arena of the same kind, with these contents or the same."""
        return replace(self, contents=self.contents if contents is None else contents)

    @cached_property
    def placement(self) -> Placement:
        """Where helper and contents lie."""
        return place(len(self.contents), self.helper)

    def connect(self) -> tuple[AnySide_co, AnySide_co]:
        """Source and target in a session of their own."""
        for side in (self.source, self.target):
            abort(side.ring)
        connect(self.source.ring, self.target.ring)
        return self.source, self.target

    def exporting(self) -> AnySide_co:
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

    def boot_contents(self) -> list[tuple[int, bytes]]:
        """(GPA, bytes) of the contents."""
        return [(part.gpa, self.contents[part.offset : part.offset + part.size]) for part in self.placement.contents]

    def address(self, page: int) -> int:
        """How requests name the page of that number."""
        return self.source.request_address(self.ram[page])

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
