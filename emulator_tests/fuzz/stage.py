"""Where a script begins: a helper of two rings on a machine in which nothing is random, and what its peer knows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from unicorn.x86_const import UC_X86_REG_RIP

from emulator_tests.fuzz.edges import Edges
from emulator_tests.fuzz.saved import Saved
from emulator_tests.fuzz.secrets import words_of
from emulator_tests.helper.conftest import SECRET, boot_contents
from emulator_tests.theorems.linked import offsets
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image, vcpu_section
from mh_builder.parts import PARTS
from mh_builder.schemes.space import HELPER_VA, Options
from mh_emulator.cpu.rdrand import Repeating
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import place
from mh_emulator.host.ring import Ring
from mh_emulator.host.session import Batch, begin, greet, join
from mh_emulator.host.side import Side
from mh_emulator.host.site import prepare
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.peer import Peer, StreamKeys
from mh_emulator.platform import Platform

PAGE = abi.MH_PAGE_BYTES
RINGS = 2
PAGES = 6
RAM_LIMIT = 1 << 30
BLOCKS = 50_000_000
"""Blocks of code that a vCPU may run until it halts; a batch of 511 pages takes 311 264, 64 of them 20 million."""
_UNTOUCHED = 1 << 20
"""RAM that nobody has touched."""

_STOP_BYTES = 64
_GCM_KEY_BYTES = 1280
"""Schedule, check, powers and sums (gcm.inc)."""
_KDF_SHARED = 20 + 2 * abi.MH_HELLO_MAC_BYTES
"""Into vcpu.kdf_input: what only both helpers know; before it lie their hellos."""

Op = abi.mh_op
Role = abi.mh_role

IDLE, GREETED, SOURCE, TARGET = range(4)
"""Phases (vcpu.inc)."""
LANES = ("vcpu.bulk", "vcpu.urgent")

ROLES: Mapping[str, Role] = {
    "source": Role.MH_ROLE_SOURCE,
    "strict": Role.MH_ROLE_SOURCE,
    "target": Role.MH_ROLE_TARGET,
}


def contents() -> bytes:
    """RAM of the guest: pages of which no two are equal, one of them of zeros."""
    pages = random.Random("fuzz").randbytes((PAGES - 1) * PAGE)
    return pages[:PAGE] + bytes(PAGE) + pages[PAGE:]


class Entry(Enum):
    """How a vCPU enters the helper."""

    GOES_ON = "goes on"
    STARTS = "starts"
    REFUSED = "finds its place taken, or that it has none"


class Stage:
    """One of `STAGES`, launched; whoever has played a script on it brings it back with `reset`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.strict = name == "strict"
        self.image = image_of(strict=self.strict)
        self.edges = Edges(self.image)
        self.secret = replace(SECRET, flags=abi.MH_OWNER_STRICT if self.strict else 0)
        self._stop = self.image.symbol("stop").value
        self.machine = self._launched(contents())
        for vcpu in self.machine.mirror.vcpus:
            self.edges.watch(vcpu)
            self.edges.allow(vcpu, BLOCKS)
        self.machine.start_helper()
        memory = self.machine.platform.memory(PAGE)
        gpa = (self.machine.base + self.machine.helper.descriptor.vmsa_offset) % (1 << 64)
        self.machine.mirror.vm.set_user_memory_region(9, gpa, PAGE, memory, 0)
        self._warm()
        if name in ROLES:
            self.connect(ROLES[name])
        self._saved = Saved(self.machine, (self.machine.memory, memory))
        self.reset()

    def reset(self) -> None:
        """Bring all back to where scripts begin."""
        self._saved.restore()
        self.machine.mirror.rings[:] = [self.ring(number) for number in range(RINGS)]
        self.edges.clear()

    def ring(self, number: int) -> Ring:
        """A ring whose lanes go on where its tails are."""
        ring = self.machine.mirror._ring(number)
        for lane in (ring, ring.urgent):
            lane._submitted = int.from_bytes(lane.read(lane._layout.tail, 4), "little")
        return ring

    def _launched(self, ram: bytes) -> Machine:
        helper = parse_image(self.image.data)
        placement = place(PAGES * PAGE, helper)
        platform = Platform(PARTS["milan"], (20 if self.strict else 12) << 20, 1)
        platform.generator = Repeating(1)
        site = prepare(platform, placement, helper)
        site = replace(site, enter=lambda vcpu, _seconds: self.enter(vcpu))
        return launch(site, GuestOwner(POLICY), boot_contents(placement, ram), self.secret)

    def enter(self, vcpu: Vcpu, instructions: int | None = None) -> Exit:
        """KVM_RUN, for so many blocks at most."""
        self.edges.allow(vcpu, BLOCKS)
        return vcpu.run(instructions)

    def is_stopped(self, number: int) -> bool:
        """Whether a vCPU that halts does so for good (`stop` in fault.s)."""
        rip = self.machine.mirror.vcpus[number]._core._engine.read(UC_X86_REG_RIP)
        return rip in range(self._stop, self._stop + _STOP_BYTES)

    def before(self, number: int, entry: Entry) -> Before:
        """Note what a run may change; one that starts has completed nothing."""
        block = self.block(number)
        stopped = entry is Entry.REFUSED or (entry is Entry.GOES_ON and self.is_stopped(number))
        heads, sequences = ((0, 0), (0, 0)) if entry is Entry.STARTS else (block.heads, block.sequences)
        return Before(block, block.number("vcpu.phase"), heads, sequences, stopped)

    def _warm(self) -> None:
        """Have what most scripts run translated, so that not every fork does it."""
        for role in (Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET):
            self.connect(role)
            for ring in self.machine.rings:
                op = Op.MH_OP_EXPORT if role == Role.MH_ROLE_SOURCE else Op.MH_OP_IMPORT
                Batch(address=self.pages[0], count=2, chunk=1).submit(ring, op)
                Side(self.machine, ring).ask(Op.MH_OP_EPOCH)
                Side(self.machine, ring).ask(Op.MH_OP_ABORT)

    def connect(self, role: int) -> None:
        """Begin a session of all rings with the peer."""
        first, *others = self.machine.rings
        greet(first)
        begin(first, role, self.hello(), RINGS)
        for ring in others:
            join(ring)

    # ---- the peer ----

    def hello(self, **fields: object) -> bytes:
        """That of the peer, with other `fields`: always the same one, as its keys are read, not made."""
        source = random.Random("peer")
        private = X25519PrivateKey.from_private_bytes(source.randbytes(abi.MH_KEY_BYTES))
        own = {
            "nonce": list(source.randbytes(abi.MH_NONCE_BYTES)),
            "share": list(private.public_key().public_bytes_raw()),
        }
        return Peer(self.secret, **(own | fields)).hello

    def keys(self, number: int, *, urgent: bool) -> StreamKeys:
        """Those of a lane, as its peer has them."""
        block = self.block(number)
        lane = LANES[urgent]
        stream = number | (abi.MH_STREAM_URGENT if urgent else 0)
        key = block.field(lane, "lane.page_key", size=abi.MH_KEY_BYTES)
        session = block.field("vcpu.session", size=abi.MH_SESSION_BYTES)
        return StreamKeys(key, session, stream, block.number("vcpu.protocol"))

    # ---- what the holder of the memory key sees ----

    def block(self, number: int) -> Block:
        """The variables of a vCPU as they are now."""
        place = self.image.section(vcpu_section(".vcpu", number)).offset
        size = -(-offsets()["vcpu.scratch"] // PAGE) * PAGE
        return Block(b"".join(self.machine.read_helper(place + at, PAGE) for at in range(0, size, PAGE)))

    def variable(self, symbol: str, size: int) -> bytes:
        """What all vCPUs share (state.s), within a page."""
        return self.machine.read_helper(self.image.symbol(symbol).value - HELPER_VA, size)

    @cached_property
    def pages(self) -> list[int]:
        """Request addresses of the guest's pages."""
        return [self.machine.request_address(page) for page in self.machine.guest_pages()]

    @cached_property
    def helper(self) -> range:
        """Offsets of the helper in guest RAM."""
        start = self.machine.helper_offset
        return range(start, start + self.machine.helper.memory_bytes)

    @cached_property
    def constant(self) -> list[tuple[int, bytes]]:
        """(place in DRAM, contents) of the helper's pages that nobody ever writes."""
        sections = (self.image.section(name) for name in (".header", ".text", ".rodata", ".tables", ".secret"))
        return self._kept(one.offset + at for one in sections for at in range(0, one.size, PAGE))

    @cached_property
    def shared(self) -> list[tuple[int, bytes]]:
        """(place in DRAM, contents) of the rings' pages."""
        return self._kept(iter(range(self.machine.helper.ring_offset, len(self.helper), PAGE)))

    def _kept(self, offsets: Iterator[int]) -> list[tuple[int, bytes]]:
        dram, memory = self.machine.platform.dram, self.machine.memory
        places = [memory.spa(self.helper.start + offset) - dram.base_spa for offset in offsets]
        return [(place, dram._bytes[place : place + PAGE]) for place in places]

    @cached_property
    def code_words(self) -> frozenset[int]:
        """What tells that code of the helper is there."""
        text = self.image.section(".text")
        return frozenset(words_of(self.image.data[text.offset : text.offset + text.size]))

    @cached_property
    def addresses(self) -> Mapping[str, int]:
        """What the names in a script stand for."""
        home, end, ram = self.helper.start, self.helper.stop, self.machine.placement.topology.ram_bytes
        named = {
            "untouched RAM": _UNTOUCHED, "before the helper": home - PAGE, "helper": home,
            "helper + 1 page": home + PAGE, "ring": home + self.machine.helper.ring_offset,
            "end of the helper - 1 page": end - PAGE, "behind the helper": end,
            "end of RAM - 1 page": ram - PAGE, "end of RAM": ram,
            "limit - 1 page": RAM_LIMIT - PAGE, "limit": RAM_LIMIT, "page 1 + 1": self.pages[1] + 1,
            "page 0 + 4095": self.pages[0] + PAGE - 1, "2 MiB - 1 page": abi.MH_VMSA_BYTES - PAGE,
            "2 MiB": abi.MH_VMSA_BYTES, "1 << 47": 1 << 47, "page 1 | 1 << 51": self.pages[1] | 1 << 51,
            "1 << 63": 1 << 63, "-1 page": (1 << 64) - PAGE, "-1": (1 << 64) - 1,
        }  # fmt: skip
        return named | {f"page {number}": page for number, page in enumerate(self.pages[:PAGES])}


@dataclass(frozen=True)
class Block:
    """A vCPU's variables (vcpu.inc), up to the scratch."""

    data: bytes

    def field(self, *names: str, size: int) -> bytes:
        """A variable, or one in another."""
        at = sum(offsets()[name] for name in names)
        return self.data[at : at + size]

    def number(self, *names: str, size: int = 4) -> int:
        """An integer."""
        return int.from_bytes(self.field(*names, size=size), "little")

    def range(self, first: str, behind: str) -> bytes:
        """From one variable up to another one."""
        return self.data[offsets()[first] : offsets()[behind]]

    @property
    def heads(self) -> tuple[int, int]:
        """Submissions completed, of both lanes."""
        return self.number("vcpu.bulk", "lane.head"), self.number("vcpu.urgent", "lane.head")

    @property
    def sequences(self) -> tuple[int, int]:
        """Numbers of the next packets of both lanes."""
        bulk, urgent = (self.number(lane, "lane.sequence", size=8) for lane in LANES)
        return bulk, urgent

    def wiped(self) -> bytes:
        """What is zero while there is neither a session nor a hello of ours that waits for its START."""
        size = offsets()["sizeof.lane"] - offsets()["lane.job"]
        lanes = b"".join(self.field(lane, "lane.job", size=size) for lane in LANES)
        return self.range("vcpu.secrets", "vcpu.secrets_end") + lanes

    def keys(self) -> Iterator[bytes]:
        """All that is secret, and nothing else."""
        for lane in LANES:
            yield self.field(lane, "lane.page_key", size=_GCM_KEY_BYTES)
        yield self.range("vcpu.mask_schedule", "vcpu.hello")
        yield self.range("vcpu.hello_schedule", "vcpu.kdf_input")
        yield self.field("vcpu.kdf_input", size=_KDF_SHARED + abi.MH_SHARE_BYTES)[_KDF_SHARED:]
        yield self.range("vcpu.derived", "vcpu.secrets_end")


@dataclass(frozen=True)
class Before:
    """A vCPU before it runs."""

    block: Block
    phase: int
    heads: tuple[int, int]
    sequences: tuple[int, int]
    stopped: bool
    """Whether what the ring says of a fault is of an earlier run."""


class Violation(AssertionError):
    """Something does not hold; the message says what."""


def image_of(*, strict: bool) -> Image:
    """The helper, for little RAM."""
    return build_helper("regions", Options(vcpus=RINGS, ram_limit=RAM_LIMIT, strict=strict))
