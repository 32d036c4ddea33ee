"""The host's side of one ring: two lanes; submissions in, completions out, and slots beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from mh_abi import abi
from mh_abi.errors import MigrationHelperError

Status = abi.mh_status


_FATAL = frozenset({Status.MH_BAD_TAG, Status.MH_BAD_TOTALS})
"""After these the session is over on the side that answers so."""


class SharedMemory(Protocol):
    """Memory that the host and the helper both see as it is."""

    def read_raw(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""

    def write_raw(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`."""


class HelperStopped(MigrationHelperError):
    """The helper went into a state in which it serves no more; the message says why."""


class HelperRefused(MigrationHelperError):
    """An operation was refused."""

    def __init__(self, operation: str, status: abi.mh_status) -> None:
        over = ", and has ended the session: both sides need new hellos" if status in _FATAL else ""
        super().__init__(f"helper refuses {operation}: {status.name}{over}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Sealed:
    """One packet, 80 bytes with the tag, and the data that travels beside it (none for zeros and totals)."""

    packet: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A submission; the fields are those of `mh_submission`."""

    op: int
    role: int = 0
    slot: int = 0
    count: int = 0
    address: int = 0
    chunk: int = 0
    flags: int = 0

    def dumps(self, cookie: int) -> bytes:
        """The 64 bytes in the ring."""
        entry = abi.mh_submission(
            op=self.op, role=self.role, slot=self.slot, count=self.count, cookie=cookie,
            address=self.address, chunk=self.chunk, flags=self.flags,
        )  # fmt: skip
        return bytes(entry.dumps())


@dataclass(frozen=True, slots=True)
class Completion:
    """What the helper answered."""

    status: abi.mh_status
    epoch: int
    pages: int
    """Moved on this ring in this session."""
    total: int
    """FINISH: pages of all rings that have finished."""
    protocol: int
    """START: the version that both sides speak."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one page; `kind` is that of its chunk."""

    status: abi.mh_status
    kind: int


@dataclass(frozen=True, slots=True)
class LaneLayout:
    """Where a lane has its parts, in bytes from the start of its ring."""

    entries: int
    head: int
    tail: int
    submissions: int
    completions: int
    list: int
    results: int
    packets: int
    data: int


_FIELDS = abi.mh_ring.fields
_WITH_DATA = (abi.mh_kind.MH_KIND_PAGE, abi.mh_kind.MH_KIND_VMSA)

BULK = LaneLayout(
    entries=abi.MH_RING_ENTRIES,
    head=_FIELDS["head"].offset,
    tail=_FIELDS["tail"].offset,
    submissions=abi.MH_RING_SUBMISSIONS,
    completions=abi.MH_RING_COMPLETIONS,
    list=abi.MH_RING_LIST,
    results=abi.MH_RING_RESULTS,
    packets=abi.MH_RING_PACKETS,
    data=abi.MH_RING_DATA,
)

URGENT = LaneLayout(
    entries=abi.MH_URGENT_ENTRIES,
    head=_FIELDS["urgent_head"].offset,
    tail=_FIELDS["urgent_tail"].offset,
    submissions=abi.MH_URGENT_SUBMISSIONS,
    completions=abi.MH_URGENT_COMPLETIONS,
    list=abi.MH_URGENT_LIST,
    results=abi.MH_URGENT_RESULTS,
    packets=abi.MH_URGENT_PACKETS,
    data=abi.MH_URGENT_DATA,
)


class Lane:
    """One queue of the ring at `offset` of `memory`; `run` lets the ring's vCPU run until it halts."""

    def __init__(self, memory: SharedMemory, offset: int, run: Callable[[], None], layout: LaneLayout) -> None:
        self._memory = memory
        self._offset = offset
        self._run = run
        self._layout = layout
        self._submitted = 0

    def header(self) -> abi.mh_ring:
        """The `abi.mh_ring` as it stands."""
        return abi.mh_ring(self.read(0, len(abi.mh_ring)))

    def serve(self, requests: Sequence[Request]) -> list[Completion]:
        """Submit these requests, as many as the lane has entries at the most, and return their completions."""
        first = self._submitted
        for request in requests:
            self.submit(request.dumps(self._submitted))
        self.run()
        return [self.completion(number % (1 << 32)) for number in range(first, first + len(requests))]

    def ask(self, operation: str, request: Request) -> Completion:
        """Submit one request that has to succeed. Raises `HelperRefused`."""
        completion = self.serve([request])[0]
        if completion.status != Status.MH_DONE:
            raise HelperRefused(operation, completion.status)
        return completion

    def submit(self, entry: bytes) -> None:
        """Put a submission into the lane and move the tail."""
        index = self._submitted % self._layout.entries
        self.write(self._layout.submissions + index * len(abi.mh_submission), entry)
        self._submitted = (self._submitted + 1) % (1 << 32)
        self.write(self._layout.tail, self._submitted.to_bytes(4, "little"))

    def run(self) -> None:
        """Let the helper serve what was submitted. Raises `HelperStopped`."""
        self._run()
        self.check()
        if self.completed != self._submitted:
            raise HelperStopped(f"helper halted after {self.completed} of {self._submitted} submissions")

    def check(self) -> None:
        """Raise `HelperStopped` where the helper does not serve this ring."""
        if int.from_bytes(self.read(_FIELDS["state"].offset, 4), "little") != abi.mh_ring_state.MH_RING_READY:
            raise HelperStopped(_why(self.header()))

    @property
    def completed(self) -> int:
        """Submissions that the helper has completed, modulo 2^32."""
        return int.from_bytes(self.read(self._layout.head, 4), "little")

    def put_list(self, slot: int, addresses: Sequence[int]) -> None:
        """Write request addresses into the list, from `slot` on."""
        data = b"".join(address.to_bytes(8, "little") for address in addresses)
        self.write(self._layout.list + 8 * slot, data)

    def put_sealed(self, slot: int, sealed: Sealed) -> None:
        """Write a packet and its data into the slots from `slot` on."""
        self.write(self._layout.packets + slot * abi.MH_PACKET_SLOT_BYTES, sealed.packet)
        self.write(self._layout.data + slot * abi.MH_PAGE_BYTES, sealed.data)

    def take_sealed(self, slot: int) -> Sealed:
        """Read the packet at `slot` and the data that it says it has."""
        packet = self.read(self._layout.packets + slot * abi.MH_PACKET_SLOT_BYTES, len(abi.mh_packet))
        kind, length = _kind_and_length(packet)
        size = abi.MH_CONTEXT_BYTES if kind == abi.mh_kind.MH_KIND_CONTEXT else length * (kind in _WITH_DATA)
        return Sealed(packet, self.read(self._layout.data + slot * abi.MH_PAGE_BYTES, size))

    def put_packet(self, slot: int, data: bytes) -> None:
        """Write something into a packet's place: a peer's hello, a challenge, a record."""
        self.write(self._layout.packets + slot * abi.MH_PACKET_SLOT_BYTES, data)

    def take_data(self, slot: int, size: int) -> bytes:
        """Read what the helper has left in a data page."""
        return self.read(self._layout.data + slot * abi.MH_PAGE_BYTES, size)

    def take_hello(self, slot: int) -> bytes:
        """Read the helper's own from there."""
        return self.read(self._layout.packets + slot * abi.MH_PACKET_SLOT_BYTES, len(abi.mh_hello))

    def results(self, slot: int, count: int) -> list[Result]:
        """What became of the pages in these slots."""
        size = len(abi.mh_result)
        data = self.read(self._layout.results + slot * size, count * size)
        return [_result(data[at : at + size]) for at in range(0, len(data), size)]

    def completion(self, number: int) -> Completion:
        """What the helper answered to submission `number`."""
        size = len(abi.mh_completion)
        entry = abi.mh_completion(self.read(self._layout.completions + number % self._layout.entries * size, size))
        return Completion(Status(entry.status), entry.epoch, entry.pages, entry.total, entry.protocol)

    def submission(self, number: int) -> abi.mh_submission:
        """What lies in the place of submission `number`."""
        size = len(abi.mh_submission)
        return abi.mh_submission(self.read(self._layout.submissions + number % self._layout.entries * size, size))

    def read(self, offset: int, size: int) -> bytes:
        """Read from the ring's memory."""
        return self._memory.read_raw(self._offset + offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Write to the ring's memory."""
        self._memory.write_raw(self._offset + offset, data)


class Ring(Lane):
    """A ring: its own queue for bulk work, and beside it the urgent one."""

    def __init__(self, memory: SharedMemory, offset: int, run: Callable[[], None]) -> None:
        super().__init__(memory, offset, run, BULK)
        self.urgent = Lane(memory, offset, run, URGENT)


@lru_cache(maxsize=256)
def _result(data: bytes) -> Result:
    """One entry; in a migration nearly all are the same."""
    entry = abi.mh_result(data)
    return Result(Status(entry.status), entry.kind)


def _kind_and_length(packet: bytes) -> tuple[int, int]:
    kind, length = (abi.mh_packet.fields[name].offset for name in ("kind", "length"))
    return int.from_bytes(packet[kind : kind + 2], "little"), int.from_bytes(packet[length : length + 4], "little")


def _why(header: abi.mh_ring) -> str:
    state = abi.mh_ring_state(header.state).name
    if header.state != abi.mh_ring_state.MH_RING_FAULT:
        return f"helper stopped: {state}"
    fault = header.fault
    return (
        f"helper stopped: {state}, vector {fault.vector}, error code {fault.error_code:#x}, "
        f"RIP {fault.rip:#x}, CR2 {fault.cr2:#x}"
    )
