"""What a helper has answered in one run: documented statuses, and packets that are what they say."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag

from emulator_tests.fuzz.ground import PAGE
from emulator_tests.fuzz.stage import SOURCE, Before, Stage, Violation
from emulator_tests.fuzz.statuses import BATCHES
from mh_abi import abi
from mh_emulator.host.ring import Lane, Sealed

Op = abi.mh_op
Kind = abi.mh_kind
Status = abi.mh_status
_HIGHEST = 15
"""Operations from here on are alike."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a lane has completed in one run, and how its vCPU was before."""

    lane: Lane
    number: int
    urgent: bool
    before: Before
    entries: tuple[int, ...]

    @property
    def sequence(self) -> int:
        """Number of the next packet before."""
        return self.before.sequences[self.urgent]

    @property
    def stream(self) -> int:
        """The lane's."""
        return self.number | (int(abi.MH_STREAM_URGENT) if self.urgent else 0)

    def fail(self, text: str) -> Violation:
        """What does not hold of it."""
        return Violation(f"stream {self.stream:#x}: {text}")


@dataclass(frozen=True, slots=True)
class Answered:
    """A submission as it lies in the ring, and its completion."""

    served: Served
    entry: abi.mh_submission
    answer: abi.mh_completion


@dataclass
class Answers:
    """Those of one script on a stage."""

    stage: Stage
    seen: set[tuple[int, int, int]] = field(default_factory=set)
    """(operation, status, phase before the run)."""
    _packets: dict[tuple[bytes, int, int], bytes] = field(default_factory=dict)
    """By nonce, all that was sealed or taken."""
    _epochs: dict[tuple[bytes, bool, int], set[int]] = field(default_factory=dict)
    """For each page of each session, the epochs in which it has moved."""
    _exported: dict[tuple[bytes, int], tuple[int, bytes]] = field(default_factory=dict)
    """For each page of each session, the ring that has exported it last, and its contents; none that is not certain."""

    def check(self, number: int, before: Before, *, midway: bool, rests: bool) -> list[Answered]:
        """Look at what was completed since `before`; where that was `midway`, submissions are no longer what was read.

        Slots are as the last submission left them only if the vCPU `rests` now. Raises `Violation`.
        """
        every = [(served, index) for served in self._served(number, before) for index in served.entries]
        for served, index in every:
            self._answered(served, index, before.phase, midway=midway)
        if len(every) == 1 and rests and not midway:
            self._looked_at(*every[0])
        elif every:
            self._exported.clear()
        return [
            Answered(served, served.lane.submission(index), _completion(served.lane, index)) for served, index in every
        ]

    def _served(self, number: int, before: Before) -> Iterator[Served]:
        ring, block = self.stage.ground.rings[number], self.stage.block(number)
        for lane, urgent, was in zip((ring, ring.urgent), (False, True), before.heads, strict=True):
            count = (block.heads[urgent] - was) % (1 << 32)
            entries = tuple((was + n) % (1 << 32) for n in range(count))
            yield Served(lane, number, urgent, before, entries[-lane._layout.entries :])

    def _answered(self, served: Served, index: int, phase: int, *, midway: bool) -> None:
        entry, answer = served.lane.submission(index), _completion(served.lane, index)
        self.seen.add((min(int(answer.op), _HIGHEST), int(answer.status), phase))
        if answer.status not in self.stage.ground.statuses.of_operation(answer.op):
            raise served.fail(f"operation {answer.op} is answered with {answer.status}")
        if not midway and (answer.op, answer.cookie) != (entry.op, entry.cookie):
            raise served.fail(f"the answer to operation {entry.op} is one to {answer.op}")

    def _looked_at(self, served: Served, index: int) -> None:
        """One submission that nothing came after, so that slots are as it left them."""
        entry, answer = served.lane.submission(index), _completion(served.lane, index)
        if entry.op in (Op.MH_OP_EPOCH, Op.MH_OP_FINISH) and answer.status == Status.MH_DONE:
            self._ended(served, entry, answer)
        if entry.op not in BATCHES or answer.status in BATCHES[entry.op]:
            return
        statuses = _statuses(served.lane, entry.slot, entry.count)
        unknown = set(statuses) - self.stage.ground.statuses.of_page(entry.op)
        if unknown:
            raise served.fail(f"a page of operation {entry.op} has status {min(unknown)}")
        first = next((status for status in statuses if status), 0)
        if first != answer.status:
            raise served.fail(f"a batch has status {answer.status}, its first page that is not done {first}")
        if entry.op != Op.MH_OP_SHARE:
            slots = range(entry.slot, entry.slot + entry.count, entry.chunk)
            self._moved(served, [slot for slot in slots if not statuses[slot - entry.slot]])
            block = self.stage.block(served.number)
            generation = int.from_bytes(self.stage.ground.variable("session_generation", 8), "little")
            lives = block.number("vcpu.phase") >= SOURCE
            if not answer.status and lives and generation != block.number("vcpu.generation", size=8):
                raise served.fail("pages move in a session that is over")
            if not answer.status and block.number("vcpu.ended"):
                raise served.fail("pages move in an epoch that the ring has ended")

    def _ended(self, served: Served, entry: abi.mh_submission, answer: abi.mh_completion) -> None:
        """The packet counts what the ring has moved, in session or epoch, and what its urgent lane has."""
        sealed = served.lane.take_sealed(entry.slot)
        self._numbered(served, sealed)
        packet, block = abi.mh_packet(sealed.packet), served.before.block
        pages = answer.pages
        if entry.op == Op.MH_OP_EPOCH:
            # Where the epoch had turned, the ring has moved nothing yet in the new one.
            pages = 0 if block.number("vcpu.ended") else block.number("vcpu.epoch_pages", size=8)
        expected = served.stream, served.sequence, pages, served.before.sequences[True]
        if (packet.stream, packet.sequence, packet.address, packet.urgent) != expected:
            raise served.fail(f"the end packet has pages {packet.address}, number {packet.sequence}: not {expected}")
        if entry.op == Op.MH_OP_FINISH and block.number("vcpu.strict"):
            for (session, page), (ring, plain) in self._exported.items():
                if (session, ring) != (bytes(packet.session), served.number):
                    continue
                if self.stage.ground.read(page) != plain:
                    raise served.fail(f"a strict finish, and page {page:#x} is not what was exported")

    def _moved(self, served: Served, slots: list[int]) -> None:
        """The chunks that are done have packets with the numbers that come next, which open to the guest's pages."""
        for number, slot in enumerate(slots, served.sequence):
            sealed = served.lane.take_sealed(slot)
            packet = abi.mh_packet(sealed.packet)
            self._numbered(served, sealed)
            if (packet.stream, packet.sequence) != (served.stream, number):
                raise served.fail(f"the packet in slot {slot} is {packet.sequence} of stream {packet.stream:#x}")
            self._once(served, packet)
            if packet.kind != Kind.MH_KIND_VMSA:
                self._opens(served, slot, sealed)

    def _once(self, served: Served, packet: abi.mh_packet) -> None:
        """A page moves once in an epoch, and on a ring that was told of the guest's start once in a session."""
        live = self.stage.block(served.number).number("vcpu.live")
        for at in range(0, packet.length, PAGE):
            page = bytes(packet.session), packet.kind == Kind.MH_KIND_VMSA, packet.address + at
            epochs = self._epochs.setdefault(page, set())
            if packet.epoch in epochs or (live and epochs):
                raise served.fail(f"page {page[2]:#x} moves again in epoch {packet.epoch}")
            epochs.add(int(packet.epoch))

    def _opens(self, served: Served, slot: int, sealed: Sealed) -> None:
        """To what the guest has there; where the session has ended since, nobody has the key."""
        if self.stage.block(served.number).number("vcpu.phase") < SOURCE:
            return
        packet = abi.mh_packet(sealed.packet)
        try:
            plain = self.stage.keys(served.number, urgent=served.urgent).open(sealed.packet, sealed.data)
        except InvalidTag:
            raise served.fail(f"the packet in slot {slot} does not open") from None
        plain = plain or bytes(packet.length)
        for at in range(0, packet.length, PAGE):
            page = packet.address + at
            self._exported[bytes(packet.session), page] = served.number, plain[at : at + PAGE]
            if page in self.stage.ground.helper_pages or self.stage.ground.read(page) != plain[at : at + PAGE]:
                raise served.fail(f"the packet in slot {slot} does not have the guest's page {page:#x}")

    def _numbered(self, served: Served, sealed: Sealed) -> None:
        """No two packets of a session have one number."""
        packet = abi.mh_packet(sealed.packet)
        nonce = bytes(packet.session), int(packet.stream), int(packet.sequence)
        if self._packets.setdefault(nonce, sealed.packet) != sealed.packet:
            raise served.fail(f"two packets have number {packet.sequence}")


def _completion(lane: Lane, number: int) -> abi.mh_completion:
    size = len(abi.mh_completion)
    return abi.mh_completion(lane.read(lane._layout.completions + number % lane._layout.entries * size, size))


def _statuses(lane: Lane, slot: int, count: int) -> list[int]:
    data = lane.read(lane._layout.results + slot * len(abi.mh_result), count * len(abi.mh_result))
    return [status for (status,) in struct.iter_unpack("<H6x", data)]
