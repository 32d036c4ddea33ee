"""Where a script begins: a helper of two rings on its ground, and what its peer knows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from unicorn.x86_const import UC_X86_REG_RIP

from emulator_tests.fuzz.ground import PAGE, PAGES, RINGS, Ground
from emulator_tests.fuzz.mirror_ground import MirrorGround
from emulator_tests.fuzz.secrets import words_of
from emulator_tests.fuzz.snp_ground import SnpGround
from mh_abi import abi
from mh_emulator.host.ring import Request
from mh_emulator.host.session import Batch, begin, greet, join
from mh_emulator.peer import Peer, StreamKeys

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
ATTESTED = 6
"""Phases (vcpu.inc)."""
LANES = ("vcpu.bulk", "vcpu.urgent")


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a stage is made: its ground, and the role in which a session has begun there, if one has."""

    ground: Callable[[], Ground]
    role: Role | None = None


BEGINNINGS: Mapping[str, Beginning] = MappingProxyType({
    "source": Beginning(partial(MirrorGround, "plain"), Role.MH_ROLE_SOURCE),
    "target": Beginning(partial(MirrorGround, "plain"), Role.MH_ROLE_TARGET),
    "started": Beginning(partial(MirrorGround, "plain")),
    "strict": Beginning(partial(MirrorGround, "strict"), Role.MH_ROLE_SOURCE),
    "es source": Beginning(partial(MirrorGround, "es"), Role.MH_ROLE_SOURCE),
    "es target": Beginning(partial(MirrorGround, "es"), Role.MH_ROLE_TARGET),
    "vmpl source": Beginning(partial(SnpGround, "guest"), Role.MH_ROLE_SOURCE),
    "vmpl target": Beginning(partial(SnpGround, "none"), Role.MH_ROLE_TARGET),
    "vmpl launched": Beginning(partial(SnpGround, "guest")),
})  # fmt: skip


class Entry(Enum):
    """How a vCPU enters the helper."""

    GOES_ON = "goes on"
    STARTS = "starts"
    REFUSED = "finds its place taken, or that it has none"


class Stage:
    """One of `BEGINNINGS`; whoever has played a script on it brings it back with `reset`."""

    def __init__(self, name: str) -> None:
        self.name = name
        beginning = BEGINNINGS[name]
        self.ground = beginning.ground()
        self.code = self.ground.code
        self.image, self.edges, self.secret = self.ground.image, self.ground.edges, self.ground.secret
        self._stop = self.image.symbol("stop").value
        launched = self.ground.saved()
        for role in self.ground.roles:
            self._warm(role)
            launched.restore()
            self._read_rings()
        if beginning.role is not None:
            self.ground.ready(beginning.role)
            self.connect(beginning.role)
        self._saved = self.ground.saved()
        self.reset()

    def reset(self) -> None:
        """Bring all back to where scripts begin."""
        self._saved.restore()
        self._read_rings()
        self.edges.clear()

    def _read_rings(self) -> None:
        self.ground.rings[:] = map(self.ground.ring_again, range(RINGS))

    def is_stopped(self, number: int) -> bool:
        """Whether a vCPU that halts does so for good (`stop` in fault.s)."""
        rip = self.ground.vcpus[number]._core._engine.read(UC_X86_REG_RIP)
        return rip in range(self._stop, self._stop + _STOP_BYTES)

    def before(self, number: int, entry: Entry) -> Before:
        """Note what a run may change; one that starts has completed nothing."""
        block = self.block(number)
        stopped = entry is Entry.REFUSED or (entry is Entry.GOES_ON and self.is_stopped(number))
        heads, sequences = ((0, 0), (0, 0)) if entry is Entry.STARTS else (block.heads, block.sequences)
        return Before(block, block.number("vcpu.phase"), heads, sequences, stopped)

    def _warm(self, role: Role) -> None:
        """Have what most scripts run translated, so that not every fork does it."""
        self.ground.ready(role)
        self.connect(role)
        for ring in self.ground.rings:
            op = Op.MH_OP_EXPORT if role == Role.MH_ROLE_SOURCE else Op.MH_OP_IMPORT
            Batch(address=self.pages[0], count=2, chunk=1).submit(ring, op)
            ring.serve([Request(Op.MH_OP_EPOCH), Request(Op.MH_OP_ABORT)])

    def connect(self, role: int) -> None:
        """Begin a session of all rings with the peer."""
        first, *others = self.ground.rings
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
            "addresses": self.ground.helper.params.addresses,
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
        return Block(self.ground.block(number), self.ground.offsets)

    @property
    def pages(self) -> list[int]:
        """Request addresses of the guest's pages."""
        return self.ground.pages

    @cached_property
    def constant(self) -> list[tuple[int, bytes]]:
        """(place in DRAM, contents) of the helper's pages that nobody ever writes."""
        sections = map(self.image.section, self.ground.never_written)
        return self._kept(one.offset + at for one in sections for at in range(0, one.size, PAGE))

    @cached_property
    def shared(self) -> list[tuple[int, bytes]]:
        """(place in DRAM, contents) of the rings' pages."""
        ground = self.ground
        return self._kept(iter(range(ground.helper.ring_offset, ground.helper.memory_bytes, PAGE)))

    def _kept(self, offsets: Iterator[int]) -> list[tuple[int, bytes]]:
        dram = self.ground.dram
        places = [self.ground.spa(offset) - dram.base_spa for offset in offsets]
        return [(place, dram._bytes[place : place + PAGE]) for place in places]

    @cached_property
    def code_words(self) -> frozenset[int]:
        """What tells that code of the helper is there; the ring's magic does not, which an instruction has."""
        text = self.image.section(".text")
        words = words_of(self.image.data[text.offset : text.offset + text.size])
        return frozenset(filter(self.ground.is_code, words)) - {abi.MH_RING_MAGIC}

    @cached_property
    def addresses(self) -> Mapping[str, int]:
        """What the names in a script stand for."""
        ground, ram, limit = self.ground, self.ground.ram_bytes, self.ground.helper.descriptor.ram_limit
        home, end = ground.helper_pages.start, ground.helper_pages.stop
        named = {
            "untouched RAM": _UNTOUCHED, "before the helper": home - PAGE, "helper": home,
            "helper + 1 page": home + PAGE, "ring": home + ground.helper.ring_offset,
            "end of the helper - 1 page": end - PAGE, "behind the helper": end,
            "end of RAM - 1 page": ram - PAGE, "end of RAM": ram,
            "limit - 1 page": limit - PAGE, "limit": limit, "page 1 + 1": self.pages[1] + 1,
            "page 0 + 4095": self.pages[0] + PAGE - 1, "2 MiB - 1 page": abi.MH_VMSA_BYTES - PAGE,
            "2 MiB": abi.MH_VMSA_BYTES, "1 << 47": 1 << 47, "page 1 | 1 << 51": self.pages[1] | 1 << 51,
            "1 << 63": 1 << 63, "-1 page": (1 << 64) - PAGE, "-1": (1 << 64) - 1,
            "registers": ground.state_address,
        }  # fmt: skip
        return named | {f"page {number}": page for number, page in enumerate(self.pages[:PAGES])}


@dataclass(frozen=True)
class Block:
    """A vCPU's variables (vcpu.inc), up to the scratch."""

    data: bytes
    at: Mapping[str, int]
    """Where its fields lie."""

    def field(self, *names: str, size: int) -> bytes:
        """A variable, or one in another."""
        at = sum(self.at[name] for name in names)
        return self.data[at : at + size]

    def number(self, *names: str, size: int = 4) -> int:
        """An integer."""
        return int.from_bytes(self.field(*names, size=size), "little")

    def range(self, first: str, behind: str) -> bytes:
        """From one variable up to another one."""
        return self.data[self.at[first] : self.at[behind]]

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
        size = self.at["sizeof.lane"] - self.at["lane.job"]
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
