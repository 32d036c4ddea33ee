"""What the scheme asks of the host's software: slots, calls that Linux does not have, memory that is plugged later."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_compare.columns.column import Value
from mh_compare.columns.host import PLUGGED, PLUGGED_SLOT, missing_of
from mh_compare.snp_arena import SnpSide
from mh_compare.subject import SnpSubject
from mh_emulator.dram.ranges import Range
from mh_emulator.host.ring import HelperStopped
from mh_emulator.kvm import SnpVcpu


def new_slots(subject: SnpSubject) -> Value:
    """The VM's slots that are none of its RAM."""
    slots = _beside_ram(subject)
    return Value(str(len(slots)), len(slots), "; ".join(f"GPA {one.gpa:#x}: {one.size:#x} bytes" for one in slots))


def _beside_ram(subject: SnpSubject) -> list[Range]:
    return [slot for slot in subject.calls.slots if slot.memory is not subject.alone.machine.memory]


def missing_calls(subject: SnpSubject) -> Value:
    """Calls of KVM, for the guest with its helper, that Linux does not have."""
    (made,) = subject.calls.vms
    return missing_of(made)


def missing_memory(subject: SnpSubject) -> Value:
    """The VM's slots over pages of KVM's own, which no process can map."""
    machine = subject.alone.machine
    own = [vcpu.vmsa for vcpu in (*machine.helpers, machine.vcpu) if isinstance(vcpu, SnpVcpu)]
    slots = [slot for slot in subject.calls.slots if slot.memory in own]
    places = ", ".join(f"GPA {slot.gpa:#x}" for slot in _beside_ram(subject))
    return Value(str(len(slots) or "none"), len(slots), f"VMSAs that move are pages of the guest's, at {places}")


def hot_plug(subject: SnpSubject) -> Value:
    """Plug memory into both guests while their helpers wait, and move a page of it."""
    source, target = subject.arena().connect()
    for side in (source, target):
        _plug(side)
    source.write(PLUGGED, b"plug" * (PAGE_BYTES // 4))
    try:
        status = target.put(PLUGGED, source.export(PLUGGED))
    except HelperStopped:
        fault = source.ring.header().fault
        stopped = f"the source's helper stops: vector {fault.vector}, error code {fault.error_code:#x}"
        return Value("no", detail=f"nobody has validated the page, and {stopped}")
    raise AssertionError(f"{subject.scheme}: a page that nobody has validated is moved: {status.name}")


def _plug(side: SnpSide) -> None:
    """Plug a page into a guest, as a private one."""
    memory = side.platform.memory(PAGE_BYTES)
    side.machine.vm.set_user_memory_region(PLUGGED_SLOT, PLUGGED, PAGE_BYTES, memory, 0)
    side.machine.expect([PLUGGED])
