"""A guest under its devices, until it has nothing to do; and what it means where it never has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from mh_abi.errors import MigrationHelperError
from mh_emulator.cpu.registers import RFLAGS_IF, Registers
from mh_emulator.kvm import EsVcpu, Vcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.q35.board import Board

IDLE_SECONDS = 20.0
"""CPU seconds for which a guest may do without any device. LZMA of the largest volumes takes 6."""
LONGEST_NS = 600 * 1_000_000_000
"""Virtual time that a guest may take: no firmware waits longer."""

_POLL_SECONDS = 0.5
_PANIC = "Kernel panic - not syncing"
_SHOWN = 120
"""Characters of a line that an error repeats."""


class GuestStopped(MigrationHelperError):
    """The guest came to an end that is none of a firmware that works; one line with where it stood."""


class Patience(NamedTuple):
    """How long a guest may go on without a sign of life: a count that changes."""

    sign: Callable[[], int]
    seconds: float
    """Of CPU."""


def run(vcpu: Vcpu, board: Board, enter: Callable[[], Exit], patience: Patience | None = None) -> Exit:
    """`enter` is KVM_RUN of `vcpu`, until a HLT with interrupts, or until somebody pauses it: LIMIT or DEBUG.

    Without `patience` accesses to devices are the sign of life, and `IDLE_SECONDS` may pass without.

    Of an SEV-ES guest no host knows whether it has interrupts on. Raises `GuestStopped` for every other end.
    """
    patience = patience or Patience(lambda: board.accesses, IDLE_SECONDS)
    with _watched(vcpu, board, patience) as waits:
        exit_ = enter()
    if waits():
        raise GuestStopped(f"the guest waits for ever{where(vcpu, board)}")
    if exit_.reason in (Reason.LIMIT, Reason.DEBUG):
        return exit_
    if exit_.reason is Reason.SHUTDOWN:
        raise GuestStopped(f"triple fault{where(vcpu, board)}")
    if exit_.reason is Reason.MMIO:
        kind = "store to" if exit_.is_write else "load from"
        raise GuestStopped(f"{kind} GPA {exit_.gpa:#x}, where nothing is{where(vcpu, board)}")
    if exit_.reason is Reason.SYSTEM_EVENT:
        raise GuestStopped(f"the guest asks for its end, the GHCB's MSR is {exit_.value:#x}{where(vcpu, board)}")
    if exit_.reason is not Reason.HLT:
        raise GuestStopped(f"the guest left with {exit_.reason.value}{where(vcpu, board)}")
    state = _registers(vcpu)
    if state is not None and not state.rflags & RFLAGS_IF:
        raise GuestStopped(f"the guest halts with interrupts off{where(vcpu, board)}")
    return exit_


class Entered(Protocol):
    """Who runs a guest, and answers what it says of itself."""

    def run_guest(self) -> Exit:
        """KVM_RUN of its vCPU, until something else than a hypercall."""


def run_guest(guest: Entered) -> Exit:
    """Until something else than what the guest says of its migration, which the host has answered."""
    while True:
        exit_ = guest.run_guest()
        if exit_.reason is not Reason.MSR:
            return exit_


def where(vcpu: Vcpu, board: Board) -> str:
    """Where a guest stands, and what it has said; behind an error."""
    state = _registers(vcpu)
    place = "where no host sees" if state is None else f"at {state.cs_base + state.rip:#x}"
    return f": {place}, after {board.accesses} accesses to devices{_said(board)}"


def _said(board: Board) -> str:
    """What tells most of what it has printed: why a kernel panics, or the first line, which an assertion is."""
    lines = [line.strip() for line in board.serial.text.splitlines() if line.strip()]
    panic = next((line for line in lines if _PANIC in line), None)
    if panic is not None:
        return f'; on the serial port: "{panic}"'
    return f'; first on the serial port: "{lines[0][:_SHOWN]}"' if lines else ""


def _registers(vcpu: Vcpu) -> Registers | None:
    """None of a guest whose registers are encrypted."""
    return None if isinstance(vcpu, EsVcpu) else vcpu.get_registers()


@contextmanager
def _watched(vcpu: Vcpu, board: Board, patience: Patience) -> Iterator[Callable[[], bool]]:
    """Give the vCPU up where it goes on without a sign of life for too long; gives whether that was done."""
    ended, given_up = threading.Event(), threading.Event()

    def look() -> None:
        seen, since = patience.sign(), time.process_time()
        while not ended.wait(_POLL_SECONDS):
            if patience.sign() != seen and board.clock.now < LONGEST_NS:
                seen, since = patience.sign(), time.process_time()
            elif time.process_time() - since > patience.seconds or board.clock.now >= LONGEST_NS:
                given_up.set()
                vcpu.kick()

    thread = threading.Thread(target=look, name="stall", daemon=True)
    thread.start()
    try:
        yield given_up.is_set
    finally:
        ended.set()
        thread.join()
