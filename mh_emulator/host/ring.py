"""The host's side of one ring: submissions in, completions, packets and data out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    """A control operation was refused."""

    def __init__(self, operation: str, status: abi.mh_status) -> None:
        super().__init__(f"helper refuses {operation}: {status.name}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Sealed:
    """One packet, 80 bytes with the tag, and the 4096 bytes that travel beside it (none behind an end packet)."""

    packet: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A submission, and what the host puts into its packet and data slots first."""

    op: int
    address: int = 0
    role: int = 0
    nonce: bytes = bytes(32)
    sealed: Sealed | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What the helper answered; `sealed` as found in the slots."""

    status: abi.mh_status
    pages: int
    nonce: bytes
    sealed: Sealed


class Ring:
    """The ring at `offset` of `memory`; `run` lets the helper's vCPU run until it halts."""

    def __init__(self, memory: SharedMemory, offset: int, run: Callable[[], None]) -> None:
        self._memory = memory
        self._offset = offset
        self._run = run
        self._submitted = 0
        self._completed = 0

    def header(self) -> Any:  # noqa: ANN401 - a structure of abi.h
        """The `abi.mh_ring` as it stands."""
        return abi.mh_ring(self._read(0, len(abi.mh_ring)))

    def serve(self, requests: Iterable[Request]) -> list[Completion]:
        """Submit all requests, as many at a time as fit, and return their completions in order."""
        completions: list[Completion] = []
        batch: list[Request] = []
        for request in requests:
            batch.append(request)
            if len(batch) == abi.MH_RING_ENTRIES:
                completions += self._serve_batch(batch)
                batch.clear()
        return completions + (self._serve_batch(batch) if batch else [])

    def ask(self, operation: str, request: Request) -> Completion:
        """Submit one request that has to succeed. Raises `HelperRefused`."""
        completion = self.serve([request])[0]
        if completion.status != Status.MH_DONE:
            raise HelperRefused(operation, completion.status)
        return completion

    def _serve_batch(self, batch: Sequence[Request]) -> list[Completion]:
        for request in batch:
            self._submit(request)
        self._write(abi.mh_ring.fields["tail"].offset, self._submitted.to_bytes(4, "little"))
        self._run()
        header = self.header()
        if header.state != abi.mh_ring_state.MH_RING_READY:
            raise HelperStopped(_why(header))
        if header.head != self._submitted:
            raise HelperStopped(f"helper halted after {header.head} of {self._submitted} submissions")
        return [self._complete() for _ in batch]

    def _submit(self, request: Request) -> None:
        index = self._submitted % abi.MH_RING_ENTRIES
        if request.sealed is not None:
            self._write(abi.MH_RING_PACKETS + index * abi.MH_PACKET_SLOT_BYTES, request.sealed.packet)
            self._write(abi.MH_RING_DATA + index * abi.MH_PAGE_BYTES, request.sealed.data)
        entry = abi.mh_submission(
            op=request.op, role=request.role, cookie=self._submitted, address=request.address, nonce=list(request.nonce)
        )
        self._write(abi.MH_RING_SUBMISSIONS + index * len(abi.mh_submission), entry.dumps())
        self._submitted = (self._submitted + 1) % (1 << 32)

    def _complete(self) -> Completion:
        index = self._completed % abi.MH_RING_ENTRIES
        size = len(abi.mh_completion)
        entry = abi.mh_completion(self._read(abi.MH_RING_COMPLETIONS + index * size, size))
        packet = self._read(abi.MH_RING_PACKETS + index * abi.MH_PACKET_SLOT_BYTES, len(abi.mh_packet))
        length = int.from_bytes(packet[8:12], "little")
        data = self._read(abi.MH_RING_DATA + index * abi.MH_PAGE_BYTES, min(length, abi.MH_PAGE_BYTES))
        self._completed = (self._completed + 1) % (1 << 32)
        return Completion(Status(entry.status), entry.pages, bytes(entry.nonce), Sealed(packet, data))

    def _read(self, offset: int, size: int) -> bytes:
        return self._memory.read_raw(self._offset + offset, size)

    def _write(self, offset: int, data: bytes) -> None:
        self._memory.write_raw(self._offset + offset, data)


def _why(header: Any) -> str:  # noqa: ANN401 - a structure of abi.h
    state = abi.mh_ring_state(header.state).name
    if header.state != abi.mh_ring_state.MH_RING_FAULT:
        return f"helper stopped: {state}"
    fault = header.fault
    return (
        f"helper stopped: {state}, vector {fault.vector}, error code {fault.error_code:#x}, "
        f"RIP {fault.rip:#x}, CR2 {fault.cr2:#x}"
    )
