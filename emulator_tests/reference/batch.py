"""Batches: EXPORT, IMPORT and SHARE, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable

from emulator_tests.reference import packets
from emulator_tests.reference.lane import Lane
from emulator_tests.reference.part import Part, Phase
from emulator_tests.reference.state import State
from mh_abi import abi

Kind = abi.mh_kind
Op = abi.mh_op
Status = abi.mh_status
PAGE = abi.MH_PAGE_BYTES

_PHASES = {Op.MH_OP_EXPORT: Phase.SOURCE, Op.MH_OP_IMPORT: Phase.TARGET}
_NO_KIND = 0


class Batch:
    """The batch that `entry` describes on `lane`; `between` is done between two chunks."""

    def __init__(
        self, state: State, part: Part, lane: Lane, entry: abi.mh_submission, between: Callable[[], None]
    ) -> None:
        self._state = state
        self._part = part
        self._lane = lane
        self._entry = entry
        self._between = between
        self._window = state.memory.window(entry.flags)
        self._done = 0
        self._status = Status.MH_DONE
        """The first that is not MH_DONE."""

    def serve(self) -> abi.mh_status:
        """Do it, leave a result for every page, and return the status of them all."""
        if not self._has_phase():
            return Status.MH_WRONG_STATE
        if self._entry.op != Op.MH_OP_SHARE and self._part.has_ended:
            return Status.MH_EPOCH_PENDING
        if self._entry.op != Op.MH_OP_SHARE and self._state.session.is_strict and self._entry.chunk != 1:
            return Status.MH_NOT_STRICT
        if self._entry.op == Op.MH_OP_IMPORT and not self._draw():
            return self._refuse_rest(Status.MH_NO_ENTROPY)
        while True:
            status = self._next()
            if status != Status.MH_DONE and self._entry.op == Op.MH_OP_IMPORT:
                return self._refuse_rest(Status.MH_SKIPPED)
            if self._done == self._entry.count:
                return self._status
            self._between()
            if not self._has_phase():
                return self._refuse_rest(Status.MH_ENDED)

    def _has_phase(self) -> bool:
        return self._entry.op == Op.MH_OP_SHARE or self._part.phase == _PHASES[Op(self._entry.op)]

    def _draw(self) -> bool:
        word = self._state.entropy.word(self._part.word)
        self._part.word = self._part.word if word is None else word
        return word is not None

    def _refuse_rest(self, status: abi.mh_status) -> abi.mh_status:
        self._answer(self._entry.count - self._done, status, _NO_KIND)
        return self._status

    def _next(self) -> abi.mh_status:
        pages = min(self._entry.chunk, self._entry.count - self._done)
        status, kind = self._chunk(self._entry.slot + self._done, pages)
        self._answer(pages, status, kind)
        return status

    def _answer(self, pages: int, status: abi.mh_status, kind: int) -> None:
        if pages:
            self._status = self._status or status
        start = self._entry.slot + self._done
        self._lane.answer(range(start, start + pages), status, kind)
        self._done += pages

    def _chunk(self, slot: int, pages: int) -> tuple[abi.mh_status, int]:
        """Status, and with MH_DONE the kind of its packet."""
        address = self._address(slot)
        refused = self._window.refusal(address, pages)
        if refused:
            return refused, _NO_KIND
        first = self._window.page(address)
        numbers = range(first, first + pages)
        if self._entry.op == Op.MH_OP_SHARE:
            return self._share(numbers), _NO_KIND
        refused = self._state.maps.claim(numbers, earlier=self._part.is_live)
        if refused:
            return refused, _NO_KIND
        if self._entry.op == Op.MH_OP_EXPORT:
            status, kind = Status.MH_DONE, self._export(slot, address, pages)
        else:
            status, kind = self._import(slot, address, pages)
        if status:
            self._state.maps.give_back(numbers)
            if status == Status.MH_BAD_TAG:
                self._part.abort()
            return status, _NO_KIND
        self._part.moved(pages)
        return Status.MH_DONE, kind

    def _address(self, slot: int) -> int:
        if self._entry.flags & abi.MH_BATCH_LIST:
            return self._lane.listed(slot)
        return self._entry.address + self._done * PAGE

    def _share(self, numbers: range) -> abi.mh_status:
        if self._entry.flags & abi.MH_BATCH_PRIVATE:
            self._state.maps.shared.difference_update(numbers)
        else:
            self._state.maps.shared.update(numbers)
        return Status.MH_DONE

    def _export(self, slot: int, address: int, pages: int) -> int:
        plain = self._state.memory.read(self._window, address, pages * PAGE)
        kind = Kind.MH_KIND_PAGE if any(plain) else Kind.MH_KIND_ZERO
        if self._entry.flags & abi.MH_BATCH_VMSA:
            kind = Kind.MH_KIND_VMSA
        header = self._header(kind, address, pages)
        packets.seal(self._lane, slot, header, b"" if kind == Kind.MH_KIND_ZERO else plain)
        if self._state.session.is_strict:
            self._state.authenticators.note(self._window.page(address), self._lane.stream, plain)
        return kind

    def _import(self, slot: int, address: int, pages: int) -> tuple[abi.mh_status, int]:
        found = abi.mh_packet(self._lane.packet(slot))
        vmsa = self._entry.flags & abi.MH_BATCH_VMSA
        if found.kind not in ((Kind.MH_KIND_VMSA,) if vmsa else (Kind.MH_KIND_PAGE, Kind.MH_KIND_ZERO)):
            return Status.MH_BAD_PACKET, _NO_KIND
        header = self._header(found.kind, address, pages)
        refused = packets.page_refusal(found, header)
        if refused:
            return refused, _NO_KIND
        is_zero = found.kind == Kind.MH_KIND_ZERO
        plain = packets.open_(self._lane, slot, header, 0 if is_zero else pages * PAGE)
        if plain is None:
            return Status.MH_BAD_TAG, _NO_KIND
        self._state.memory.write(self._window, address, bytes(pages * PAGE) if is_zero else plain)
        return Status.MH_DONE, found.kind

    def _header(self, kind: int, address: int, pages: int) -> abi.mh_packet:
        return packets.expected(self._lane, kind, pages * PAGE, address, self._part.epoch)
