"""The host's side of one ring: submissions in, completions out; addresses, packets, data and results in slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from payload import abi

Status = abi.mh_status


class SharedMemory(Protocol):
    """Memory that the host and the helper both see as it is."""

    def read_raw(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""

    def write_raw(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`."""


class HelperStopped(Exception):
    """The helper went into a state in which it serves no more; the message says why."""


class HelperRefused(Exception):
    """An operation was refused."""

    def __init__(self, operation: str, status: abi.mh_status) -> None:
        super().__init__(f"helper refuses {operation}: {status.name}")
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
    nonce: bytes = bytes(32)
    chunk: int = 0
    flags: int = 0

    def dumps(self, cookie: int) -> bytes:
        """The 64 bytes in the ring."""
        entry = abi.mh_submission(
            op=self.op, role=self.role, slot=self.slot, count=self.count, cookie=cookie,
            address=self.address, nonce=list(self.nonce), chunk=self.chunk, flags=self.flags,
        )  # fmt: skip
        return bytes(entry.dumps())


@dataclass(frozen=True, slots=True)
class Completion:
    """What the helper answered."""

    status: abi.mh_status
    epoch: int
    pages: int
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one page; `kind` is that of its chunk."""

    status: abi.mh_status
    kind: int


class Ring:
    """The ring at `offset` of `memory`; `run` lets the helper's vCPU run until it halts."""

    def __init__(self, memory: SharedMemory, offset: int, run: Callable[[], None]) -> None:
        self._memory = memory
        self._offset = offset
        self._run = run
        self._submitted = 0

    def header(self) -> Any:  # noqa: ANN401 - a structure of abi.h
        """The `abi.mh_ring` as it stands."""
        return abi.mh_ring(self.read(0, len(abi.mh_ring)))

    def serve(self, requests: Sequence[Request]) -> list[Completion]:
        """Submit these requests, as many as the ring has entries at the most, and return their completions."""
        first = self._submitted
        for request in requests:
            self.submit(request.dumps(self._submitted))
        self.run()
        return [self._completion(number % (1 << 32)) for number in range(first, first + len(requests))]

    def ask(self, operation: str, request: Request) -> Completion:
        """Submit one request that has to succeed. Raises `HelperRefused`."""
        completion = self.serve([request])[0]
        if completion.status != Status.MH_DONE:
            raise HelperRefused(operation, completion.status)
        return completion

    def submit(self, entry: bytes) -> None:
        """Put a submission into the ring and move the tail."""
        index = self._submitted % abi.MH_RING_ENTRIES
        self.write(abi.MH_RING_SUBMISSIONS + index * len(abi.mh_submission), entry)
        self._submitted = (self._submitted + 1) % (1 << 32)
        self.write(abi.mh_ring.fields["tail"].offset, self._submitted.to_bytes(4, "little"))

    def run(self) -> None:
        """Let the helper serve what was submitted. Raises `HelperStopped`."""
        self._run()
        header = self.header()
        if header.state != abi.mh_ring_state.MH_RING_READY:
            raise HelperStopped(_why(header))
        if header.head != self._submitted:
            raise HelperStopped(f"helper halted after {header.head} of {self._submitted} submissions")

    def put_list(self, slot: int, addresses: Sequence[int]) -> None:
        """Write request addresses into the list, from `slot` on."""
        data = b"".join(address.to_bytes(8, "little") for address in addresses)
        self.write(abi.MH_RING_LIST + 8 * slot, data)

    def put_sealed(self, slot: int, sealed: Sealed) -> None:
        """Write a packet and its data into the slots from `slot` on."""
        self.write(abi.MH_RING_PACKETS + slot * abi.MH_PACKET_SLOT_BYTES, sealed.packet)
        self.write(abi.MH_RING_DATA + slot * abi.MH_PAGE_BYTES, sealed.data)

    def take_sealed(self, slot: int) -> Sealed:
        """Read the packet at `slot` and the data that it says it has."""
        packet = self.read(abi.MH_RING_PACKETS + slot * abi.MH_PACKET_SLOT_BYTES, len(abi.mh_packet))
        kind, length = _kind_and_length(packet)
        has_data = kind == abi.mh_kind.MH_KIND_PAGE
        return Sealed(packet, self.read(abi.MH_RING_DATA + slot * abi.MH_PAGE_BYTES, length if has_data else 0))

    def results(self, slot: int, count: int) -> list[Result]:
        """What became of the pages in these slots."""
        size = len(abi.mh_result)
        data = self.read(abi.MH_RING_RESULTS + slot * size, count * size)
        entries = (abi.mh_result(data[at : at + size]) for at in range(0, len(data), size))
        return [Result(Status(entry.status), entry.kind) for entry in entries]

    def read(self, offset: int, size: int) -> bytes:
        """Read from the ring's memory."""
        return self._memory.read_raw(self._offset + offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Write to the ring's memory."""
        self._memory.write_raw(self._offset + offset, data)

    def _completion(self, number: int) -> Completion:
        size = len(abi.mh_completion)
        offset = abi.MH_RING_COMPLETIONS + number % abi.MH_RING_ENTRIES * size
        entry = abi.mh_completion(self.read(offset, size))
        return Completion(Status(entry.status), entry.epoch, entry.pages, bytes(entry.nonce))


def _kind_and_length(packet: bytes) -> tuple[int, int]:
    kind, length = (abi.mh_packet.fields[name].offset for name in ("kind", "length"))
    return int.from_bytes(packet[kind : kind + 2], "little"), int.from_bytes(packet[length : length + 4], "little")


def _why(header: Any) -> str:  # noqa: ANN401 - a structure of abi.h
    state = abi.mh_ring_state(header.state).name
    if header.state != abi.mh_ring_state.MH_RING_FAULT:
        return f"helper stopped: {state}"
    fault = header.fault
    return (
        f"helper stopped: {state}, vector {fault.vector}, error code {fault.error_code:#x}, "
        f"RIP {fault.rip:#x}, CR2 {fault.cr2:#x}"
    )
