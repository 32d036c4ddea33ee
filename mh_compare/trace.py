"""What happened while an attack was carried out: calls of KVM, exits of vCPUs, and what helpers were asked.

It is read off at the border that a host has: ioctls, and the rings in memory that it shares with a helper.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_emulator.dram.process import UserMemory
from mh_emulator.host.ring import BULK, URGENT, Lane
from mh_emulator.host.view import MirrorSlot
from mh_emulator.kvm import SnpVm, Vm
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.watched import Call
from mh_emulator.platform import Platform
from mh_emulator.snp_platform import SnpPlatform

MOST_LINES = 40
"""Lines of one trace; what is in the middle of a longer one is left out."""

_QUIET = frozenset({"KVM_CREATE_VCPU", "KVM_SET_REGS", "KVM_SEV_LAUNCH_UPDATE_DATA", "KVM_CAP_EXIT_HYPERCALL",
                    "KVM_CAP_X86_USER_SPACE_MSR", "KVM_X86_SET_MSR_FILTER", "KVM_SEV_SNP_LAUNCH_UPDATE"})  # fmt: skip
"""Of these the arguments tell nothing here."""

_SILENT = frozenset({"KVM_GET_REGS", "KVM_SET_MEMORY_ATTRIBUTES"})
"""These are not told of where they succeed."""

_OPERATIONS = {op.value: op.name.removeprefix("MH_OP_") for op in abi.mh_op}
_ON_PAGES = frozenset({abi.mh_op.MH_OP_EXPORT.value, abi.mh_op.MH_OP_IMPORT.value, abi.mh_op.MH_OP_SHARE.value})


class Trace:
    """Lines, each with how often it came in a row; of many the first and the last are kept."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=MOST_LINES // 2)
        self._line, self._times = "", 0
        self._dropped = 0

    def add(self, line: str) -> None:
        """Add a line, or count it with the one before, where that is the same."""
        if line != self._line:
            self._put()
            self._line, self._times = line, 0
        self._times += 1

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines, as far as there is room."""
        self._put()
        self._line, self._times = "", 0
        dropped = (f"... {self._dropped} lines ...",) if self._dropped else ()
        return (*self._first, *dropped, *self._last)

    def _put(self) -> None:
        if not self._times:
            return
        text = f"{self._line}, {self._times} times" if self._times > 1 else self._line
        if len(self._first) < MOST_LINES // 2:
            self._first.append(text)
        else:
            self._dropped += len(self._last) == self._last.maxlen
            self._last.append(text)


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


@contextmanager
def tracing() -> Iterator[Trace]:
    """Have what happens on attended platforms written into a new trace."""
    trace = Trace()
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def tell(line: str) -> None:
    """Write a line into whatever trace there is."""
    trace = _current.get()
    if trace is not None:
        trace.add(line)


def attend(platform: Platform | SnpPlatform, name: str, helper: HelperImage) -> None:
    """Write what happens on `platform`, whose VMs run that helper, into whatever trace there is at that time."""
    vms: list[_Watched] = []

    def watch(vm: Vm | SnpVm) -> None:
        vms.append(_Watched(name, helper, vms))
        vm.watchers.append(vms[-1].see)

    platform.watchers.append(watch)


@dataclass
class _Watched:
    """One VM of a platform; it is a mirror once its context has been copied."""

    platform: str
    helper: HelperImage
    siblings: list[_Watched]
    is_mirror: bool = False
    slots: dict[int, MirrorSlot] = field(default_factory=dict)
    served: dict[tuple[UserMemory, int, str], int] = field(default_factory=dict)
    """Ring and lane -> submissions that have been told of."""

    @property
    def name(self) -> str:
        """Platform and kind, with a number where there are several."""
        alike = [vm for vm in self.siblings if vm.is_mirror == self.is_mirror]
        number = alike.index(self) + 1 if len(alike) > 1 else 0
        kind = "mirror" if self.is_mirror else "VM" if self._is_snp else "main VM"
        return f"{self.platform}, {kind}{f' {number}' if number else ''}"

    @property
    def _is_snp(self) -> bool:
        """Whether the helper is in the guest itself."""
        return self.helper.snp_secrets_offset is not None

    def see(self, call: Call) -> None:
        """Write down an ioctl."""
        if call.name == "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM" and not isinstance(call.result, Exception):
            self.is_mirror = True
        if call.name == "KVM_SET_USER_MEMORY_REGION" and not isinstance(call.result, Exception):
            self._set_slot(call)
        requests = list(self._requests()) if call.name == "KVM_RUN" and (self.is_mirror or self._is_snp) else []
        trace = _current.get()
        if trace is None or (call.name in _SILENT and not isinstance(call.result, Exception)):
            return
        # A helper that halts has answered; what it answered tells that.
        if not (requests and call.result == Exit(Reason.HLT)):
            trace.add(f"{self.name}: {_words(call)}")
        for request in requests:
            trace.add(f"{self.platform}, helper: {request}")

    def _set_slot(self, call: Call) -> None:
        match call.arguments:
            case (int(number), int(gpa), int(size), UserMemory() as memory, int(offset)):
                self.slots[number] = MirrorSlot(gpa, size, memory, offset)

    def _requests(self) -> Iterator[str]:
        """What the helper has served since the last look at its first ring."""
        start = self.helper.descriptor.link_base + self.helper.ring_offset
        for slot in self.slots.values():
            if slot.gpa <= start < slot.gpa + slot.size:
                place = slot.offset + start - slot.gpa
                for name, layout in (("", BULK), ("urgent ", URGENT)):
                    lane = Lane(slot.memory, place, _nothing, layout)
                    for number in self._served(lane, (slot.memory, place, name), layout.entries):
                        yield name + _request(lane, number)

    def _served(self, lane: Lane, key: tuple[UserMemory, int, str], entries: int) -> range:
        """Numbers of submissions; a ring that begins anew counts from 0."""
        done, before = lane.completed, self.served.get(key, 0)
        self.served[key] = done
        first = 0 if done < before else before
        return range(first, done) if done - first <= entries else range(0)


def _nothing() -> None:
    """Run no vCPU."""


def _words(call: Call) -> str:
    if isinstance(call.result, Exception):
        return str(call.result)
    match call.name, call.arguments:
        case "KVM_RUN", _ if isinstance(call.result, Exit):
            return f"KVM_RUN: {_exit(call.result)}"
        case "KVM_SET_USER_MEMORY_REGION", (number, _, 0, *_):
            return f"{call.name}: no slot {number}"
        case "KVM_SET_USER_MEMORY_REGION", (number, int(gpa), int(size), _, int(offset)):
            return f"{call.name}: slot {number}, GPA {gpa:#x} to {gpa + size:#x}, memory from {offset:#x}"
        case _:
            numbers = [f"{part:#x}" for part in call.arguments if isinstance(part, int)]
            return call.name if call.name in _QUIET or not numbers else f"{call.name}: {', '.join(numbers)}"


def _exit(exit_: Exit) -> str:
    match exit_.reason:
        case Reason.MMIO:
            return f"{'write' if exit_.is_write else 'read'} at GPA {exit_.gpa:#x}, where no slot is"
        case Reason.MSR:
            return f"MSR {exit_.msr:#x}"
        case Reason.IO:
            return f"port {exit_.port:#x}"
        case Reason.HLT:
            return "halts"
        case _:
            return str(exit_.reason.value)


def _request(lane: Lane, number: int) -> str:
    """A submission and its completion."""
    entry = lane.submission(number)
    name = _OPERATIONS.get(entry.op, f"operation {entry.op:#x}")
    pages = f", {entry.count} pages" if entry.count > 1 else ""
    place = f" {entry.address:#x}{pages}" if entry.op in _ON_PAGES else ""
    return f"{name}{place}: {lane.completion(number).status.name!s}"
