"""Where a guest is stopped, so that it is migrated from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mh_emulator.cpu.registers import RFLAGS_IF
from mh_emulator.kvm import EsVcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.linux.launch import Running


class Where(Enum):
    """Behind a line that the guest prints."""

    SENT = "sent"
    """Where its driver has sent the last byte."""
    IDLE = "idle"
    """Asleep, at the first HLT."""
    SYSCALL = "syscall"
    """At the kernel's first instruction, to which SYSCALL has led."""
    INTERRUPT = "interrupt"
    """At that of a handler, to which the timer's interrupt of a process has led; under SEV-ES of whatever it was."""


_NEEDED = {
    Where.SYSCALL: "made a system call",
    Where.INTERRUPT: "been interrupted in its process by its timer",
}


@dataclass(frozen=True)
class Stop:
    """Where to stop; without a line, where the guest is idle."""

    line: str | None = None
    where: Where = Where.SENT
    instructions: int = 0
    """As many of the guest's behind that: wherever a physical interrupt stops it."""


@dataclass(frozen=True)
class Stopped:
    """Where a guest has been stopped."""

    rip: int
    privilege: int
    """CPL."""
    interrupts: bool
    """RFLAGS.IF."""
    process_rip: int | None = None
    """RIP of the process: behind its SYSCALL, or where its timer has interrupted it."""


class Chase:
    """A guest that runs until it is at `stop`."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._has_printed = stop.line is None
        self._process_rip: int | None = None
        self._has_come = False
        """To where more than a line leads."""

    def hear(self, text: str, running: Running) -> None:
        """The guest, which runs, has printed that line."""
        if self._has_printed or text != self._stop.line:
            return
        self._has_printed = True
        if self._stop.where is Where.IDLE:
            running.timer.sleeps = False
        elif self._stop.where is Where.INTERRUPT:
            running.timer.on_expiry = lambda: self._interrupt(running)
        else:
            running.machine.vcpu.kick()

    def run(self, running: Running, go_on: Callable[[], Exit]) -> str | None:
        """Run it by `go_on`; what the guest has not done where it is idle instead, else None."""
        exit_ = go_on()
        if not self._has_printed:
            return f'printed "{self._stop.line}"'
        if self._stop.instructions:
            # What the guest says of itself meanwhile is answered, and the count begins again.
            exit_ = running.machine.run_guest(self._stop.instructions)
            return None if exit_.reason is Reason.LIMIT else f"executed {self._stop.instructions} more instructions"
        if self._stop.where is Where.SYSCALL:
            # KVM gives a host LSTAR; the guest's IDT, which would say where a handler is, is encrypted.
            vcpu = running.machine.vcpu
            vcpu.set_guest_debug(vcpu.get_registers().lstar)
            exit_ = go_on()
            vcpu.set_guest_debug(None)
            if exit_.reason is Reason.DEBUG:
                self._has_come, self._process_rip = True, vcpu.get_registers().rcx
        running.timer.on_expiry = None
        return None if self._has_come else _NEEDED.get(self._stop.where)

    def stopped(self, running: Running) -> Stopped | None:
        """Where it stands; None of an SEV-ES guest, whose registers no host sees."""
        if isinstance(running.machine.vcpu, EsVcpu):
            return None
        state = running.machine.vcpu.get_registers()
        return Stopped(state.rip, state.privilege, bool(state.rflags & RFLAGS_IF), self._process_rip)

    def _interrupt(self, running: Running) -> None:
        vcpu = running.machine.vcpu
        if self._has_come:
            return
        if not isinstance(vcpu, EsVcpu):
            state = vcpu.get_registers()
            if not state.privilege:
                return
            self._process_rip = state.rip
        self._has_come = True
        vcpu.kick()
