"""A vCPU: KVM_RUN, and what KVM does itself between two of its exits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu.core import Core
from mh_emulator.cpu.eventinj import EventInjection, Kind
from mh_emulator.cpu.executed import Executed
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.cpu.memory_trace import MemoryTrace
from mh_emulator.cpu.registers import Registers
from mh_emulator.kvm import hypercalls, msrs, ports
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.frame import Frame, PlainFrame
from mh_emulator.kvm.msrs import Kept, MsrDevice, MsrExits
from mh_emulator.kvm.watched import Watcher, watched


class Machine(Executed, Protocol):
    """The VM around a vCPU."""

    hypercall_exits: int
    msr_exits: MsrExits
    watchers: list[Watcher]

    @property
    def runnable(self) -> bool:
        """Whether the CPU accepts the VM's ASID."""

    def count(self) -> int:
        """What RDTSC gives, where it is intercepted."""


class Answer(NamedTuple):
    """What the host leaves in struct kvm_run for the instruction that it was asked about."""

    value: int = 0
    error: bool = False


Pending = Callable[[Answer], Exit | None]
"""What is left to do with the host's answer; it may come to a further exit."""

_REASONS = {
    Code.HLT: Reason.HLT,
    Code.INTR: Reason.LIMIT,
    Code.DB: Reason.DEBUG,
    Code.SHUTDOWN: Reason.SHUTDOWN,
    Code.INVALID: Reason.FAIL_ENTRY,
    Code.NO_MEMORY: Reason.NO_MEMORY,
}


class Vcpu:
    """A virtual CPU of `vm`; its methods are the ioctls on its file descriptor.

    HYPERCALL, IO and MSR leave before the instruction; the next `run` completes it with the host's `answer`.
    """

    def __init__(self, vm: Machine) -> None:
        self._vm = vm
        self._core = Core(vm)
        self._pending: Pending | None = None
        self._answer = Answer()
        self._injected: EventInjection | None = None
        self.msrs: dict[int, int] = {}
        """What KVM keeps of MSRs, by index, and gives no host a say in: KVM_SET_MSRS puts them there."""
        self.msr_devices: dict[int, MsrDevice] = {}
        """Those that do something."""
        self._kicked = False

    @property
    def watchers(self) -> list[Watcher]:
        """Whoever watches its VM."""
        return self._vm.watchers

    @watched("KVM_GET_REGS")
    def get_registers(self) -> Registers:
        """KVM_GET_REGS, KVM_GET_SREGS and the like."""
        return self._core.get_registers()

    @watched("KVM_SET_REGS")
    def set_registers(self, registers: Registers) -> None:
        """KVM_SET_REGS, KVM_SET_SREGS and the like; `ValueError` outside of long mode with paging."""
        self._core.set_registers(registers)

    @watched("KVM_SET_GUEST_DEBUG")
    def set_guest_debug(self, breakpoint_: int | None) -> None:
        """KVM_SET_GUEST_DEBUG with KVM_GUESTDBG_USE_HW_BP: one of its four addresses, of code; None: without."""
        self._core.set_breakpoint(breakpoint_)

    def answer(self, value: int = 0, *, error: bool = False) -> None:
        """Say what the instruction of the last exit gives: RAX of a hypercall, input, an MSR.

        Without a call it is 0 and no error.
        """
        self._answer = Answer(value, error)

    @watched("KVM_RUN")
    def run(self, max_instructions: int | None = None) -> Exit:
        """KVM_RUN: until an exit, or until `max_instructions` have been begun."""
        if not self._vm.runnable:
            return Exit(Reason.FAIL_ENTRY)
        remaining = max_instructions
        self._kicked = False
        exit_ = self._complete()
        if exit_ is not None:
            return exit_
        while True:
            stop = self._enter(remaining)
            if remaining is not None:
                remaining -= self._core.begun
            exit_ = self._handle(stop)
            if exit_ is not None:
                return exit_
            if self._kicked:
                return Exit(Reason.LIMIT)

    @property
    def begun(self) -> int:
        """Instructions begun since the last exit of a run with a limit, that one's included."""
        return self._core.begun

    def inject_event(self, event: EventInjection) -> None:
        """Make `event` happen at the next VMRUN, in place of one that waits already.

        A process has KVM_SET_VCPU_EVENTS; the kernel, which is the hostile host's too, has all of EVENTINJ.
        """
        self._injected = event

    def kick(self) -> None:
        """Make KVM_RUN return soon, from another thread, to give the vCPU up; a call before it began may be lost.

        One that comes as a device sees the vCPU take its interrupt leaves it at the handler's first instruction.
        """
        self._kicked = True
        self._core.kick()

    def flush_translations(self) -> None:
        """Forget cached translations, after a change of the VM's memory slots."""
        self._core.flush_translations()

    def close(self) -> None:
        """Stop watching memory; the vCPU cannot be used any more."""
        self._core.close()

    def trace_memory(self, callback: MemoryTrace | None) -> None:
        """Call `callback` for every data access from now on, or stop that with None."""
        self._core.trace_memory(callback)

    def read_linear(self, va: int, size: int) -> bytes:
        """Return memory as the guest's supervisor sees it at `va`; raise `GuestFault` or `NestedFaultError`."""
        return self._core.read_linear(va, size)

    def _enter(self, max_instructions: int | None) -> Intercept:
        """VMRUN; the CPU of a host that wants it back delivers an event, and leaves before the next instruction."""
        event = self._take_event()
        return self._core.run(0 if self._kicked else max_instructions, event)

    def _take_event(self) -> EventInjection | None:
        event, self._injected = self._injected, None
        return self._interrupt() if event is None else event

    def _interrupt(self) -> EventInjection | None:
        """What waits in the local APIC, once the guest takes it."""
        devices = self._vm.devices
        vector = None if devices is None else devices.vector()
        if devices is None or vector is None or not self._core.is_interruptible:
            return None
        devices.acknowledge()
        return EventInjection(Kind.INTR, vector)

    def _sleeps(self) -> bool:
        """Whether a HLT ends here, with an interrupt, and not in the host."""
        devices = self._vm.devices
        return devices is not None and self._core.is_interruptible and devices.sleep()

    def _handle(self, stop: Intercept) -> Exit | None:
        if stop.code is Code.VINTR or (stop.code is Code.HLT and self._sleeps()):
            return None
        if stop.code in _REASONS:
            return Exit(_REASONS[stop.code])
        if stop.event is not None:
            self.inject_event(stop.event)
        page = stop.gpa & -PAGE_BYTES
        if stop.code is Code.NPF and page in self._vm.absent:
            return Exit(Reason.MEMORY_FAULT, gpa=page, size=PAGE_BYTES)
        if stop.code is Code.NPF:
            return Exit(Reason.MMIO, gpa=stop.gpa, size=stop.size, is_write=stop.is_write)
        frame = PlainFrame(self._core, stop.length, self.inject_event)
        if stop.code is Code.RDTSC and self._vm.intercepts_tsc:
            self._rdtsc(frame, self._vm.count())
            return None
        return self._emulate(frame, stop)

    def _rdtsc(self, frame: Frame, count: int) -> None:
        frame.write("rax", count & 0xFFFF_FFFF)
        frame.write("rdx", count >> 32)
        frame.done()

    def _complete(self) -> Exit | None:
        pending, self._pending = self._pending, None
        answer, self._answer = self._answer, Answer()
        return None if pending is None else pending(answer)

    def _access_msr(self, frame: Frame, stop: Intercept) -> Exit | None:
        kept = Kept(self.msrs, self.msr_devices)
        return msrs.begin(frame, self._vm.msr_exits, kept, is_write=stop.is_write)

    def _emulate(self, frame: Frame, stop: Intercept) -> Exit | None:
        """Do what the guest asks for, or leave for the host, whose answer will complete it."""
        if stop.code is Code.VMMCALL:
            exit_ = hypercalls.begin(frame, self._vm.hypercall_exits)
            self._pending = lambda answer: hypercalls.finish(frame, answer.value)
        elif stop.code is Code.MSR:
            exit_ = self._access_msr(frame, stop)
            self._pending = lambda answer: msrs.finish(frame, answer.value, is_write=stop.is_write, error=answer.error)
        elif stop.code is Code.IOIO:
            if self._vm.devices is not None:
                ports.serve(frame, stop, self._vm.devices)
                return None
            exit_ = ports.begin(frame, stop)
            self._pending = lambda answer: ports.finish(frame, stop, answer.value)
        else:
            return Exit(Reason.INTERNAL_ERROR)
        if exit_ is None:
            self._pending = None
        return exit_
