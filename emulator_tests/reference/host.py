"""The host of both, and whoever is in league with it: it asks for anything, as random numbers have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from emulator_tests.reference import requests
from emulator_tests.reference.beside import Beside
from emulator_tests.reference.correspondent import NO_DAMAGE, Correspondent
from emulator_tests.reference.lane import Lane
from emulator_tests.reference.part import MOVING, Phase
from emulator_tests.reference.terms import PAGE, RINGS
from emulator_tests.reference.vcpu import Vcpu
from mh_abi import abi
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.host import ring
from mh_emulator.host.ring import Request
from mh_emulator.host.session import Batch

Kind = abi.mh_kind
Op = abi.mh_op
Role = abi.mh_role

SLOTS = (abi.MH_RING_SLOTS, abi.MH_URGENT_SLOTS)
ROLES = (Role.MH_ROLE_SOURCE.value, Role.MH_ROLE_TARGET.value)


class Host:
    """It knows what the reference waits for, so that much of what it asks for is served."""

    def __init__(self, both: Beside) -> None:
        self._both = both
        self._peer = Correspondent(both.terms.secret, 1)
        self._hello = b""
        """The helper's last one."""
        self._before = 0, Batch(count=1)
        """The batch that was asked for last."""
        self._asked = 0
        self._steps: dict[Callable[[Random], None], int] = {
            self._move: 40,
            self._share: 8,
            self._guest_writes: 8,
            self._end_epoch: 10,
            self._finish: 7,
            self._resume: 3,
            self._connect: 2,
            self._start: 2,
            self._join: 4,
            self._anything: 8,
            self._abort: 1,
            self._restart: 1,
            self._break_generators: 2,
            self._move_tail: 1,
        }
        for page in range(0, len(both.terms.pages), 3):
            both.guest_writes(page, self._peer.contents(1))

    def step(self, random: Random) -> None:
        """Ask for something."""
        if self._vcpu(0).part.phase not in MOVING and random.random() < 0.7:
            random.choice([self._connect, self._connect, self._start])(random)
        else:
            random.choices(list(self._steps), list(self._steps.values()))[0](random)

    def _vcpu(self, number: int) -> Vcpu:
        return self._both.reference.helper.vcpus[number]

    def _lanes(self, number: int, urgent: int) -> tuple[ring.Lane, Lane]:
        """The host's side of a lane, and the helper's."""
        host = self._both.rings[number]
        return host.urgent if urgent else host, self._vcpu(number).lanes[urgent]

    def _ask(self, random: Random, number: int, request: Request, urgent: int = 0) -> None:
        """Submit it, and run the ring now, or with what is submitted next."""
        lane = self._submit(random, number, request, urgent)
        if random.random() < 0.9 or lane.waiting == lane.layout.entries:
            self._both.run(number)

    def _submit(self, random: Random, number: int, request: Request, urgent: int = 0) -> Lane:
        host, lane = self._lanes(number, urgent)
        host.submit(requests.entry(random, request, self._asked << 40 | self._asked))
        self._asked += 1
        return lane

    def _at_work(self, random: Random) -> int:
        """A ring, most often one that has a part in a session, and has not ended its epoch."""
        parts = [vcpu.part for vcpu in self._both.reference.helper.vcpus]
        working = [number for number, part in enumerate(parts) if part.phase in MOVING and not part.has_ended]
        return random.choice(working) if working and random.random() < 0.9 else random.randrange(RINGS)

    # ---- sessions ----

    def _connect(self, random: Random) -> None:
        role, streams = random.choice(ROLES), random.choice([1, 2, 2, 2, 2, 2, 2, RINGS + 1])
        self._greet(random)
        self._begin(random, role, streams, self._peer.greet())
        for number in range(1, min(streams, RINGS)):
            self._ask(random, number, Request(Op.MH_OP_JOIN))

    def _start(self, random: Random) -> None:
        """With a hello of which something may be wrong, and then with one that is right."""
        self._greet(random)
        peers = [self._peer.greet_without_share(), self._hello, self._peer.greet(requests.hello_damage(random))]
        self._begin(random, random.choice(ROLES), 1, random.choices(peers, [1, 1, 6])[0])
        self._begin(random, random.choice(ROLES), 1, self._peer.greet())

    def _greet(self, random: Random) -> None:
        self._submit(random, 0, Request(Op.MH_OP_HELLO))
        self._both.run(0)
        self._hello = self._both.rings[0].take_hello(0)

    def _begin(self, random: Random, role: int, streams: int, hello: bytes) -> None:
        self._both.rings[0].put_packet(0, hello)
        before = self._vcpu(0).part.phase
        self._submit(random, 0, Request(Op.MH_OP_START, role=role, count=streams))
        self._both.run(0)
        if before == Phase.GREETED and self._vcpu(0).part.phase in MOVING:
            self._peer.begin(self._hello, role, streams)

    def _join(self, random: Random) -> None:
        self._ask(random, random.randrange(RINGS), Request(Op.MH_OP_JOIN))

    def _resume(self, random: Random) -> None:
        self._ask(random, self._at_work(random), Request(Op.MH_OP_RESUME))

    def _abort(self, random: Random) -> None:
        self._ask(random, random.randrange(RINGS), Request(Op.MH_OP_ABORT))

    def _anything(self, random: Random) -> None:
        """Without fields, on any lane."""
        op, urgent = random.randint(0, max(Op) + 1), random.randrange(2)
        if op != Op.MH_OP_ABORT or urgent:
            self._ask(random, random.randrange(RINGS), Request(op), urgent)

    # ---- pages ----

    def _move(self, random: Random) -> None:
        number, urgent = self._at_work(random), random.choice([0, 0, 1])
        slot, batch = self._batch(random, SLOTS[urgent])
        self._lanes(number, urgent)[0].put_list(slot, batch.listed)
        op = Op.MH_OP_IMPORT if self._vcpu(number).part.phase == Phase.TARGET else Op.MH_OP_EXPORT
        if random.random() < 0.05:
            op = random.choice([Op.MH_OP_IMPORT, Op.MH_OP_EXPORT])
        if op == Op.MH_OP_IMPORT:
            self._put_packets(random, number, urgent, slot, batch)
        request = requests.misshapen(random, batch.request(op, slot), SLOTS[urgent])
        self._ask(random, number, request, urgent)

    def _batch(self, random: Random, slots: int) -> tuple[int, Batch]:
        """A batch and its first slot; now and then the one before, in smaller chunks."""
        slot, batch = self._before
        if slot + batch.pages > slots or random.random() < 0.8:
            slot, batch = requests.batch(random, slots, requests.MOVES)
        else:
            batch = replace(batch, chunk=1)
        self._before = slot, batch
        return slot, batch

    def _put_packets(self, random: Random, number: int, urgent: int, slot: int, batch: Batch) -> None:
        host, lane = self._lanes(number, urgent)
        epoch, chunks = self._vcpu(number).part.epoch, requests.chunks(slot, batch)
        wrong, damage = random.randrange(len(chunks)), requests.packet_damage(random)
        for place, (at, address, count) in enumerate(chunks):
            kind = Kind.MH_KIND_VMSA if batch.flags & abi.MH_BATCH_VMSA else Kind.MH_KIND_PAGE
            kind = Kind.MH_KIND_ZERO if random.random() < 0.3 and kind == Kind.MH_KIND_PAGE else kind
            header = self._peer.header(lane, epoch, kind=kind.value, length=count * PAGE, address=address)
            header.sequence += place
            plain = b"" if kind == Kind.MH_KIND_ZERO else self._peer.contents(count)
            host.put_sealed(at, self._peer.seal(header, plain, damage if place == wrong else NO_DAMAGE))

    def _share(self, random: Random) -> None:
        number = random.randrange(RINGS)
        slot, batch = requests.batch(random, SLOTS[0], requests.SHARES)
        self._both.rings[number].put_list(slot, batch.listed)
        self._ask(random, number, batch.request(Op.MH_OP_SHARE, slot))

    def _guest_writes(self, random: Random) -> None:
        """Often where pages are moved often."""
        pages = self._both.terms.pages
        page = random.randrange(random.choice([8, 140, len(pages)]))
        batch = self._before[1]
        if batch.address in pages and random.random() < 0.4:
            page = pages.index(batch.address)
        self._both.guest_writes(page, bytes(PAGE) if random.random() < 0.5 else self._peer.contents(1))

    # ---- ends ----

    def _end_epoch(self, random: Random) -> None:
        number = self._at_work(random)
        self._end(random, number, Op.MH_OP_EPOCH, Kind.MH_KIND_EPOCH.value, self._vcpu(number).part.epoch_pages)

    def _finish(self, random: Random) -> None:
        """Now and then when the guest has just written."""
        if random.random() < 0.4:
            self._guest_writes(random)
        number = self._at_work(random)
        self._end(random, number, Op.MH_OP_FINISH, Kind.MH_KIND_END.value, self._vcpu(number).part.pages)

    def _end(self, random: Random, number: int, op: int, kind: int, moved: int) -> None:
        vcpu, slot = self._vcpu(number), random.choice([0, abi.MH_RING_SLOTS - 1])
        bulk, urgent = vcpu.lanes
        header = self._peer.header(bulk, vcpu.part.epoch, kind=kind, address=moved, urgent=urgent.sequence)
        self._both.rings[number].put_sealed(slot, self._peer.seal(header, b"", requests.end_damage(random)))
        self._ask(random, number, Request(op, slot=slot))

    # ---- what breaks ----

    def _restart(self, random: Random) -> None:
        self._both.restart(random.randrange(RINGS))

    def _break_generators(self, random: Random) -> None:
        """Most often when they are needed for a second hello."""
        if self._vcpu(0).part.phase not in MOVING or random.random() < 0.3:
            self._submit(random, 0, Request(Op.MH_OP_ABORT))
            self._greet(random)
        self._both.break_generators(FAULTS[random.choice(sorted(FAULTS))])
        for number in range(RINGS):
            self._ask(random, number, Request(Op.MH_OP_HELLO))
            self._ask(random, number, Request(Op.MH_OP_IMPORT, count=2, chunk=1))
        self._both.break_generators(None)
        self._begin(random, random.choice(ROLES), 1, self._peer.greet())

    def _move_tail(self, random: Random) -> None:
        """As far as there is room, so that all is served again that is there; and then further."""
        number, urgent = random.randrange(RINGS), random.choice([0, 1, 1, 1])
        host, lane = self._lanes(number, urgent)
        for distance in (lane.layout.entries, lane.layout.entries + 1):
            host.write(lane.layout.tail, ((lane.head + distance) % (1 << 32)).to_bytes(4, "little"))
            self._both.run(number)
        self._both.restart(number)
