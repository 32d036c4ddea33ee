"""A vCPU of the helper: it serves its ring until there is nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emulator_tests.reference import packets, submission
from emulator_tests.reference.batch import Batch
from emulator_tests.reference.hello import Hello
from emulator_tests.reference.lane import Lane
from emulator_tests.reference.part import MOVING, Part, Phase
from emulator_tests.reference.state import State
from mh_abi import abi
from mh_emulator.host.ring import BULK, URGENT

Kind = abi.mh_kind
Op = abi.mh_op
Role = abi.mh_role
RingState = abi.mh_ring_state
Status = abi.mh_status

Handler = Callable[[Lane, abi.mh_submission, abi.mh_completion], abi.mh_status]
"""Does what a submission asks for; it may fill in fields of the completion besides the status that it returns."""


class Broken(Exception):
    """The host has moved a tail by more than its lane holds."""


class Vcpu:
    """The vCPU of ring `index`; `others_work` says whether another one is in the middle of a session's work."""

    def __init__(self, state: State, index: int, others_work: Callable[[], bool]) -> None:
        self._state = state
        self._index = index
        self._others_work = others_work
        self._base = index * abi.MH_RING_BYTES
        self._bulk = Lane(state.shared, self._base, BULK, index, abi.MH_RING_SLOTS)
        urgent = index | abi.MH_STREAM_URGENT
        self._urgent = Lane(state.shared, self._base, URGENT, urgent, abi.MH_URGENT_SLOTS)
        self.part = Part(state.session, (self._bulk, self._urgent))
        self.is_busy = False
        self._between: Callable[[], None] = lambda: None
        self._serves = False
        self._handlers: dict[abi.mh_op, Handler] = {
            Op.MH_OP_HELLO: self._hello,
            Op.MH_OP_START: self._start,
            Op.MH_OP_EXPORT: self._move,
            Op.MH_OP_IMPORT: self._move,
            Op.MH_OP_EPOCH: self._end_epoch,
            Op.MH_OP_FINISH: self._finish,
            Op.MH_OP_ABORT: self._abort,
            Op.MH_OP_JOIN: self._join,
            Op.MH_OP_SHARE: self._move,
            Op.MH_OP_RESUME: self._resume,
        }

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """The bulk lane, and the urgent one."""
        return self._bulk, self._urgent

    def start(self) -> None:
        """Begin at the entry: the ring's session is over for all rings, ring 0 ends any."""
        if self._index == 0 or self.part.phase >= Phase.SOURCE:
            self._state.session.end()
        self.part.wipe()
        self.part.phase = Phase.IDLE
        self._bulk.head = self._urgent.head = 0
        self._serves = True
        self._open_ring()
        self.run()

    def run(self) -> None:
        """Serve what is there."""
        if not self._serves:
            return
        self.is_busy = True
        try:
            self._serve()
        except Broken:
            self._break()
        self.is_busy = False

    @contextmanager
    def having(self, between: Callable[[], None]) -> Iterator[None]:
        """Let `between` happen elsewhere whenever this vCPU is between two chunks of a batch on its bulk lane."""
        before, self._between = self._between, between
        yield
        self._between = before

    def _serve(self) -> None:
        self._serve_all(self._urgent)
        while self._has_work(self._bulk):
            for _ in range(self._bulk.waiting):
                self._serve_one(self._bulk)
                self._serve_all(self._urgent)

    def _serve_all(self, lane: Lane) -> None:
        if self._has_work(lane):
            for _ in range(lane.waiting):
                self._serve_one(lane)

    def _has_work(self, lane: Lane) -> bool:
        if lane.waiting > lane.layout.entries:
            raise Broken
        return lane.waiting > 0

    def _serve_one(self, lane: Lane) -> None:
        self.part.attend()
        entry = lane.fetch()
        completion = abi.mh_completion(op=entry.op, cookie=entry.cookie)
        refused = submission.refusal(entry, lane.stream, lane.slots, self._state.rings)
        completion.status = refused or self._handlers[Op(entry.op)](lane, entry, completion)
        completion.epoch = self.part.epoch
        completion.pages = self.part.pages
        lane.complete(completion)

    def _hello(self, lane: Lane, entry: abi.mh_submission, _answer: abi.mh_completion) -> abi.mh_status:
        if self.part.phase > Phase.GREETED:
            return Status.MH_WRONG_STATE
        self.part.phase = Phase.IDLE
        words: list[int] = []
        while len(words) < 4:
            word = self._state.entropy.word(self.part.word)
            if word is None:
                return Status.MH_NO_ENTROPY
            self.part.word = word
            words.append(word)
        nonce, scalar = self._state.entropy.derived(self._state.secret, words, self._index)
        self.part.hello = Hello(self._state.secret, nonce, scalar)
        self.part.phase = Phase.GREETED
        lane.put_packet(entry.slot, self.part.hello.dumps())
        return Status.MH_DONE

    def _start(self, lane: Lane, entry: abi.mh_submission, answer: abi.mh_completion) -> abi.mh_status:
        ours = self.part.hello
        if self.part.phase != Phase.GREETED or ours is None:
            return Status.MH_WRONG_STATE
        if self._others_work():
            return Status.MH_BUSY
        is_strict = entry.role == Role.MH_ROLE_SOURCE and self._state.secret.flags & abi.MH_OWNER_STRICT != 0
        if is_strict and not self._state.has_room:
            return Status.MH_NOT_STRICT
        peer = lane.hello(entry.slot)
        refused = ours.refusal(peer, entry.role)
        if refused:
            return refused
        key = ours.agree(peer, entry.role, entry.count)
        if key is None:
            self.part.hello = None
            self.part.phase = Phase.IDLE
            return Status.MH_BAD_SHARE
        self._state.maps.reset()
        self._state.authenticators.forget()
        self._state.session.begin(key, entry.role, entry.count, is_strict=is_strict)
        self.part.take(key)
        answer.protocol = key.protocol
        return Status.MH_DONE

    def _join(self, _lane: Lane, _entry: abi.mh_submission, _answer: abi.mh_completion) -> abi.mh_status:
        session = self._state.session
        if self.part.phase != Phase.IDLE or not session.is_alive:
            return Status.MH_WRONG_STATE
        if self._index >= session.streams or session.key is None:
            return Status.MH_WRONG_STATE
        self.part.take(session.key)
        return Status.MH_DONE

    def _move(self, lane: Lane, entry: abi.mh_submission, _answer: abi.mh_completion) -> abi.mh_status:
        between = self.part.attend if lane.is_urgent else self._overtake
        return Batch(self._state, self.part, lane, entry, between).serve()

    def _overtake(self) -> None:
        self._between()
        self._serve_all(self._urgent)
        self.part.attend()

    def _end_epoch(self, lane: Lane, entry: abi.mh_submission, _answer: abi.mh_completion) -> abi.mh_status:
        refused = self._agree(lane, entry.slot, Kind.MH_KIND_EPOCH, self.part.epoch_pages)
        if refused:
            return refused
        self.part.has_ended = True
        if self._state.session.ends_epoch():
            self._state.maps.turn()
            self.part.attend()
        return Status.MH_DONE

    def _finish(self, lane: Lane, entry: abi.mh_submission, answer: abi.mh_completion) -> abi.mh_status:
        refused = self._end_refusal() or self._change()
        refused = refused or self._agree(lane, entry.slot, Kind.MH_KIND_END, self.part.pages)
        if refused:
            return refused
        answer.total = self.part.finish()
        return Status.MH_DONE

    def _agree(self, lane: Lane, slot: int, kind: int, pages: int) -> abi.mh_status:
        """The packet that ends something: made at the source, compared at the target."""
        refused = self._end_refusal()
        if refused:
            return refused
        header = packets.expected(lane, kind, 0, pages, self.part.epoch, self._urgent.sequence)
        if self.part.phase == Phase.SOURCE:
            packets.seal(lane, slot, header, b"")
            return Status.MH_DONE
        status = packets.end_refusal(abi.mh_packet(lane.packet(slot)), header)
        if not status and packets.open_(lane, slot, header, 0) is None:
            status = Status.MH_BAD_TAG
        if status in (Status.MH_BAD_TAG, Status.MH_BAD_TOTALS):
            self.part.abort()
        return status

    def _end_refusal(self) -> abi.mh_status:
        """Why the ring cannot end an epoch, nor its part in the session, now."""
        if self.part.phase not in MOVING:
            return Status.MH_WRONG_STATE
        return Status.MH_EPOCH_PENDING if self.part.has_ended else Status.MH_DONE

    def _change(self) -> abi.mh_status:
        """MH_CHANGED where a strict source has changed since it was exported."""
        streams = tuple(lane.stream for lane in self.lanes)
        if not self._state.session.is_strict or self._state.authenticators.are_right(self._state.memory, streams):
            return Status.MH_DONE
        return Status.MH_CHANGED

    def _abort(self, _lane: Lane, _entry: abi.mh_submission, _answer: abi.mh_completion) -> abi.mh_status:
        self.part.abort()
        return Status.MH_DONE

    def _resume(self, _lane: Lane, _entry: abi.mh_submission, _answer: abi.mh_completion) -> abi.mh_status:
        if self.part.phase not in MOVING:
            return Status.MH_WRONG_STATE
        self.part.is_live = True
        return Status.MH_DONE

    def _break(self) -> None:
        self._state.session.end()
        self.part.wipe()
        self.part.phase = Phase.IDLE
        self._serves = False
        self._write("state", RingState.MH_RING_BROKEN)

    def _open_ring(self) -> None:
        self._write("magic", abi.MH_RING_MAGIC)
        self._write("version", abi.MH_ABI_VERSION)
        self._write("entries", abi.MH_RING_ENTRIES)
        self._write("features", abi.MH_FEATURE_AESNI)
        self._write("head", 0)
        self._write("urgent_head", 0)
        self._write("state", RingState.MH_RING_READY)

    def _write(self, name: str, value: int) -> None:
        field = abi.mh_ring.fields[name]
        self._state.shared.write_raw(self._base + field.offset, int(value).to_bytes(len(field.type), "little"))
