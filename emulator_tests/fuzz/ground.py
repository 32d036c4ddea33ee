"""What a stage stands on: a launched helper of two rings, on a machine in which nothing is random."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

from emulator_tests.fuzz.edges import Edges
from emulator_tests.fuzz.saved import Saved
from emulator_tests.fuzz.statuses import MIRROR
from emulator_tests.theorems.linked import offsets
from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.image.model import Image, vcpu_section
from mh_builder.schemes.space import HELPER_VA
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.dram.dram import Dram
from mh_emulator.host.ring import Lane, Ring
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit
from mh_emulator.secret import Secret

PAGE = abi.MH_PAGE_BYTES
RINGS = 2
PAGES = 6
BLOCKS = 50_000_000
"""Blocks of code that a vCPU may run until it halts; a batch of 511 pages takes 311 264, 64 of them 20 million."""


def contents() -> bytes:
    """RAM of the guest: pages of which no two are equal, one of them of zeros."""
    pages = random.Random("fuzz").randbytes((PAGES - 1) * PAGE)
    return pages[:PAGE] + bytes(PAGE) + pages[PAGE:]


class Ground(ABC):
    """A machine; pages are named by request addresses, and those of the helper by how far they are from its base."""

    code = "mirror"
    """Whose edges are counted together."""
    restarts = False
    """Whether a host can put a vCPU back to its entry: not where registers are encrypted."""
    never_written: tuple[str, ...] = (".header", ".text", ".rodata", ".tables", ".secret")
    """Sections of the helper."""
    defined: tuple[str, ...] = ()
    """What its sources were assembled with, of what changes private state (vcpu.inc)."""
    statuses = MIRROR

    roles = tuple(abi.mh_role)
    """In which its helper can do something."""
    harmed = False
    """Whether the host has taken from the helper what it cannot do without."""

    def __init__(self, image: Image, secret: Secret) -> None:
        self.image = image
        self.secret = secret
        self.edges = Edges(image)
        self.rings: list[Ring] = []

    # ---- the machine ----

    @property
    @abstractmethod
    def helper(self) -> HelperImage:
        """The image, as its host has it."""

    @property
    @abstractmethod
    def dram(self) -> Dram:
        """Memory, as it is stored."""

    @property
    @abstractmethod
    def generator(self) -> Generator:
        """Behind RDRAND."""

    @property
    @abstractmethod
    def vcpus(self) -> Sequence[Vcpu]:
        """The helper's."""

    @property
    @abstractmethod
    def ram_bytes(self) -> int:
        """How much RAM the guest has, or where it ends."""

    @abstractmethod
    def saved(self) -> Saved:
        """The machine as it is now."""

    @abstractmethod
    def ready(self, role: int) -> None:
        """Have the helper and its guest be as they are before a session in that role begins."""

    @abstractmethod
    def ring(self, number: int) -> Ring:
        """A ring with nothing submitted."""

    def enter(self, vcpu: Vcpu, instructions: int | None = None) -> Exit:
        """KVM_RUN, for so many instructions and for `BLOCKS` at most."""
        self.edges.allow(vcpu, BLOCKS)
        return vcpu.run(instructions)

    @abstractmethod
    def brings_about(self, exit_: Exit) -> bool:
        """Whether the helper may leave so, halfway: for what its host has asked for, or has done."""

    @abstractmethod
    def provokes(self, fault: abi.mh_fault) -> bool:
        """Whether the helper may stop for good so, without an event."""

    def is_without_ram(self, gpa: int) -> bool:
        """Whether a request can have this address of RAM or of a VMSA, as the helper sees it."""
        descriptor = self.helper.descriptor
        vmsa = (gpa - self.base - descriptor.vmsa_offset) % (1 << 64)
        return gpa - descriptor.window in range(descriptor.ram_limit) or vmsa in range(abi.MH_VMSA_BYTES)

    @abstractmethod
    def at_peace(self) -> None:
        """Have the host stop what it does against the helper, as far as it can."""

    def watch(self, vcpu: Vcpu) -> None:
        """Count the edges of a vCPU that has run nothing."""
        self.edges.watch(vcpu)
        self.edges.allow(vcpu, BLOCKS)

    def ring_again(self, number: int) -> Ring:
        """A ring whose lanes go on where its tails are."""
        ring = self.ring(number)
        for lane in (ring, ring.urgent):
            lane._submitted = int.from_bytes(lane.read(lane._layout.tail, 4), "little")
        return ring

    # ---- the guest's pages ----

    @abstractmethod
    def own_pages(self) -> list[int]:
        """Those of the guest that have a frame, and are neither the helper's nor shared."""

    @abstractmethod
    def read(self, page: int) -> bytes:
        """What the guest sees there."""

    @abstractmethod
    def write(self, page: int, data: bytes) -> None:
        """What the guest writes there."""

    @abstractmethod
    def is_given(self, page: int) -> bool:
        """Whether nobody has written there since the host gave it."""

    def is_code(self, word: int) -> bool:
        """Whether a word of the code tells that code is there: not where the helper says it openly."""
        return bool(word)

    @cached_property
    def pages(self) -> list[int]:
        """Those that there are at the start, or that are to come: the ones with contents before others."""
        return self.own_pages()

    @property
    def state_address(self) -> int:
        """How a request names the page of registers that moves with the guest."""
        return 0

    @property
    def state_page(self) -> int:
        """The same page as one of the guest's, where it is one."""
        return self.state_address

    def state(self) -> bytes:
        """What the peer has there; none where anything will do."""
        return b""

    def context(self) -> bytes:
        """What the peer's secure processor says of its guest."""
        return bytes(abi.MH_CONTEXT_BYTES)

    # ---- the helper's memory ----

    @property
    @abstractmethod
    def home(self) -> int:
        """Where a request finds the helper."""

    @cached_property
    def helper_pages(self) -> range:
        """Request addresses of the helper's memory."""
        return range(self.home, self.home + self.helper.memory_bytes)

    @property
    @abstractmethod
    def base(self) -> int:
        """GPA of the helper, where it runs."""

    @abstractmethod
    def spa(self, offset: int) -> int:
        """Of the helper's memory, as it was launched."""

    @abstractmethod
    def read_helper(self, offset: int, size: int) -> bytes:
        """What the helper sees in its private memory, within one page."""

    def secrets(self) -> list[bytes]:
        """What only the guest has beside its owner's record."""
        return []

    @property
    def offsets(self) -> Mapping[str, int]:
        """Where the fields of private state lie."""
        return offsets(*self.defined)

    def block(self, number: int) -> bytes:
        """The variables of a vCPU as they are now, up to its scratch."""
        place = self.image.section(vcpu_section(".vcpu", number)).offset
        size = -(-self.offsets["vcpu.scratch"] // PAGE) * PAGE
        return b"".join(self.read_helper(place + at, PAGE) for at in range(0, size, PAGE))

    def variable(self, symbol: str, size: int) -> bytes:
        """What all vCPUs share (state.s), within a page."""
        return self.read_helper(self.image.symbol(symbol).value - HELPER_VA, size)


def begin_at(lane: Lane, head: int) -> None:
    """Forget what waits in a lane whose helper has completed `head` submissions."""
    lane._submitted = head
    lane.write(lane._layout.tail, head.to_bytes(4, "little"))
