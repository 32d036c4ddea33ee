"""A vCPU under gdb: it runs when gdb says so, and stops at breakpoints, which are addresses and change no memory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Protocol

from mh_emulator.cpu.mmu import GuestFault
from mh_emulator.cpu.nested import NestedFaultError
from mh_emulator.cpu.registers import Registers
from mh_emulator.gdb import layout
from mh_emulator.gdb.packets import INTERRUPT, PACKET_BYTES, Connection
from mh_emulator.kvm.exits import Exit, Reason

_TRAP, _BY_GDB, _FAULT = "S05", "S02", "S0b"
_POLL = 1000
"""Instructions between two looks at whether gdb wants to stop."""

_LONG_STRIDE = 10_000
"""Instructions at once while there is nothing to stop at."""

_NUMBER = re.compile("[0-9a-fA-F]{1,16}")


class Vcpu(Protocol):
    """What a debugger needs of a vCPU whose registers the host sees."""

    def run(self, max_instructions: int | None = None) -> Exit:
        """KVM_RUN."""

    def get_registers(self) -> Registers:
        """KVM_GET_REGS."""

    def set_registers(self, registers: Registers) -> None:
        """KVM_SET_REGS."""

    def read_linear(self, va: int, size: int) -> bytes:
        """Memory as the guest sees it. Raises `GuestFault`, `NestedFaultError`."""


class Debugger:
    """One gdb and the vCPU that it looks at; the vCPU's first instruction waits for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._breakpoints: set[int] = set()
        self._goes_on = False
        """Whether gdb waits for the target to stop."""
        self._steps = False
        self._is_attached = True

    def run(self, vcpu: Vcpu) -> Exit:
        """KVM_RUN under gdb, until the vCPU leaves the guest. Raises `DebuggerGoneError`."""
        # A step over HLT ends, and a breakpoint behind HLT stops, when the vCPU is entered again.
        if self._goes_on and self._stops_at(vcpu):
            self._stopped(_TRAP)
        while self._is_attached:
            if not self._goes_on:
                self._serve(vcpu)
            elif (exit_ := self._go(vcpu)) is not None:
                return exit_
        return vcpu.run()

    def end(self, code: int) -> None:
        """Tell gdb that the run is over, with an exit code."""
        if self._is_attached:
            self._connection.send(f"W{code:02x}")
            self._connection.close()

    def _go(self, vcpu: Vcpu) -> Exit | None:
        """Run until gdb has to be told something, or until an exit."""
        stride = 1 if self._steps or self._breakpoints else _LONG_STRIDE
        for count in itertools.count(1):
            exit_ = vcpu.run(stride)
            if exit_.reason is Reason.SHUTDOWN:
                self._stopped(_FAULT)
                self._serve(vcpu)
            if exit_.reason is not Reason.LIMIT:
                return exit_
            if self._stops_at(vcpu):
                self._stopped(_TRAP)
                return None
            if count * stride % _POLL == 0 and self._connection.is_interrupted():
                self._stopped(_BY_GDB)
                return None
        raise AssertionError("itertools.count has no end")

    def _stops_at(self, vcpu: Vcpu) -> bool:
        return self._steps or vcpu.get_registers().rip in self._breakpoints

    def _stopped(self, why: str) -> None:
        self._goes_on = False
        self._connection.send(why)

    def _serve(self, vcpu: Vcpu) -> None:
        """Answer until gdb lets the vCPU go on."""
        while self._is_attached and not self._goes_on:
            request = self._connection.receive()
            answer = None if request == INTERRUPT else self._answer(request, vcpu)
            if answer is not None:
                self._connection.send(answer)

    def _answer(self, request: str, vcpu: Vcpu) -> str | None:
        """What to say; None where nothing is said now, and nothing said where a request is not known."""
        answers: dict[str, Callable[[str, Vcpu], str | None]] = {
            "?": lambda *_: _TRAP, "H": lambda *_: "OK", "T": lambda *_: "OK",
            "g": _registers, "p": _register, "P": _set_register, "m": _memory,
            "Z": self._breakpoint, "z": self._breakpoint,
            "c": self._go_on, "s": self._go_on, "D": self._leave, "k": self._leave,
            "q": self._query, "Q": self._query,
        }  # fmt: skip
        answer = answers.get(request[:1])
        try:
            return "" if answer is None else answer(request, vcpu)
        except (ValueError, IndexError):
            return "E01"
        except (GuestFault, NestedFaultError):
            return "E14"

    def _go_on(self, request: str, _vcpu: Vcpu) -> None:
        self._goes_on, self._steps = True, request[0] == "s"

    def _breakpoint(self, request: str, _vcpu: Vcpu) -> str:
        kind, address, _ = request[1:].split(",", 2)
        if kind not in ("0", "1"):
            return ""
        change = self._breakpoints.add if request[0] == "Z" else self._breakpoints.discard
        change(_number(address))
        return "OK"

    def _query(self, request: str, _vcpu: Vcpu) -> str | None:
        name = request.split(":", maxsplit=1)[0]
        if name == "QStartNoAckMode":
            self._connection.send("OK")
            self._connection.stop_acknowledging()
            return None
        if request.startswith("qXfer:features:read:target.xml:"):
            start, size = map(_number, request.rsplit(":", 1)[1].split(","))
            text = layout.description()
            return ("m" if start + size < len(text) else "l") + text[start : start + size]
        return {
            "qSupported": f"PacketSize={PACKET_BYTES:x};QStartNoAckMode+;qXfer:features:read+",
            "qAttached": "1",
            "qC": "QC1",
            "qfThreadInfo": "m1",
            "qsThreadInfo": "l",
        }.get(name, "")

    def _leave(self, request: str, _vcpu: Vcpu) -> None:
        """Let the vCPU run on without gdb: it detaches, or is gone."""
        if request[0] == "D":
            self._connection.send("OK")
        self._connection.close()
        self._is_attached = False


def _registers(_request: str, vcpu: Vcpu) -> str:
    registers = vcpu.get_registers()
    return "".join(layout.value(registers, name) for name in layout.NAMES)


def _register(request: str, vcpu: Vcpu) -> str:
    return layout.value(vcpu.get_registers(), layout.NAMES[_number(request[1:])])


def _set_register(request: str, vcpu: Vcpu) -> str:
    number, digits = request[1:].split("=")
    vcpu.set_registers(layout.with_value(vcpu.get_registers(), layout.NAMES[_number(number)], digits))
    return "OK"


def _memory(request: str, vcpu: Vcpu) -> str:
    address, size = map(_number, request[1:].split(","))
    return _read(vcpu, address, min(size, PACKET_BYTES // 2)).hex()


def _number(digits: str) -> int:
    """A number of the protocol: hex digits alone, of 64 bits at most. Raises `ValueError`."""
    if not _NUMBER.fullmatch(digits):
        raise ValueError(digits)
    return int(digits, 16)


def _read(vcpu: Vcpu, address: int, size: int) -> bytes:
    """As much as can be read from there; raises what the first byte raises."""
    try:
        return vcpu.read_linear(address, size)
    except (GuestFault, NestedFaultError):
        if size <= 1:
            raise
    half = size // 2
    first = _read(vcpu, address, half)
    if len(first) < half:
        return first
    try:
        return first + _read(vcpu, address + half, size - half)
    except (GuestFault, NestedFaultError):
        return first
