"""What a layout asks of the host's software: slots and calls that it does not have, memory that is plugged later.

Source of what Linux has: include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h of Linux 6.15.
"""

from __future__ import annotations

from collections import Counter

from mh_builder.paging import GIB, PAGE_BYTES
from mh_compare.arena import Status
from mh_compare.calls import in_words
from mh_compare.columns.column import Column, Value
from mh_compare.mirror_arena import MirrorArena, MirrorSide
from mh_compare.subject import MirrorSubject
from mh_emulator.host.machine import Machine
from mh_emulator.host.view import MirrorSlot
from mh_emulator.kvm.es_vcpu import EsVcpu

LINUX = frozenset({
    "KVM_CREATE_VM", "KVM_CREATE_VCPU", "KVM_SET_USER_MEMORY_REGION", "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM",
    "KVM_MEMORY_ENCRYPT_REG_REGION", "KVM_SEV_INIT", "KVM_SEV_INIT2", "KVM_SEV_LAUNCH_START",
    "KVM_SEV_LAUNCH_UPDATE_DATA", "KVM_SEV_LAUNCH_UPDATE_VMSA", "KVM_SEV_LAUNCH_MEASURE", "KVM_SEV_LAUNCH_SECRET",
    "KVM_SEV_LAUNCH_FINISH", "KVM_CAP_EXIT_HYPERCALL", "KVM_CAP_X86_USER_SPACE_MSR", "KVM_X86_SET_MSR_FILTER",
    "KVM_SET_MEMORY_ATTRIBUTES", "KVM_SEV_SNP_LAUNCH_START", "KVM_SEV_SNP_LAUNCH_UPDATE", "KVM_SEV_SNP_LAUNCH_FINISH",
})  # fmt: skip
"""Calls of KVM that a launch may take."""

PLUGGED = 6 * GIB
"""GPA of memory that is plugged while the helper waits; small images name addresses below 8 GiB."""

PLUGGED_SLOT = 9


def new_slots(subject: MirrorSubject) -> Value:
    """The mirror's slots that are none of the main VM's: other memory, or the same at another GPA."""
    machine = subject.source.machine
    known = {(block.gpa, block.size, block.ram_addr) for block in machine.placement.topology.blocks}
    slots = [slot for slot in machine.mirror_slots() if not _is_known(slot, machine, known)]
    return Value(str(len(slots)), len(slots), "; ".join(_words(slot, machine) for slot in slots))


def _is_known(slot: MirrorSlot, machine: Machine, known: set[tuple[int, int, int]]) -> bool:
    return slot.memory is machine.memory and (slot.gpa, slot.size, slot.offset) in known


def _words(slot: MirrorSlot, machine: Machine) -> str:
    what = "ram_addr" if slot.memory is machine.memory else "memory of no RAM block, offset"
    return f"GPA {slot.gpa:#x}: {slot.size:#x} bytes from {what} {slot.offset:#x}"


def missing_calls(subject: MirrorSubject) -> Value:
    """Calls of KVM, for main VM and mirror of a plain SEV guest, that Linux does not have."""
    return missing_of(subject.calls.vms[0] + subject.calls.vms[-1])


def missing_of(made: Counter[str]) -> Value:
    """The calls of those that were `made` which Linux does not have."""
    missing = sorted(set(made) - LINUX)
    return Value(", ".join(missing) or "none", len(missing), f"made: {in_words(made)}")


def missing_memory(subject: MirrorSubject) -> Value:
    """The mirror's slots, when registers of an SEV-ES guest are to move, over memory that no process can map."""
    machine = MirrorArena(subject.small_es).launched()
    pages = [vcpu.vmsa for vcpu in [machine.vcpu] if isinstance(vcpu, EsVcpu)]
    for page in pages:
        machine.show_state(page)
    slots = [slot for slot in machine.mirror_slots() if slot.memory in pages]
    places = ", ".join(f"GPA {slot.gpa:#x}" for slot in slots)
    return Value(f"{len(slots)} slot for each vCPU", len(slots), f"its VMSA, which is the kernel's, at mirror {places}")


def hot_plug(subject: MirrorSubject) -> Value:
    """Plug memory into both guests while their helpers wait, and move a page of it."""
    source, target = subject.arena().connect()
    addresses = {_plug(side) for side in (source, target)}
    if len(addresses) != 1:
        raise AssertionError(f"{subject.scheme}: plugged at {sorted(addresses)}")
    [address] = addresses
    status = target.put(address, source.export(address))
    if status != Status.MH_DONE:
        return Value(f"no: {status.name}", 0)
    return Value("1 slot", 1, f"requests name it {address:#x}; the helper goes on as it is")


def _plug(side: MirrorSide) -> int:
    """Plug a page into a guest and show it to the mirror; return how requests name it."""
    machine = side.machine
    memory = machine.platform.memory(PAGE_BYTES)
    machine.platform.dram.write_private(machine.asid, memory.spa(0), b"plug" * (PAGE_BYTES // 4))
    machine.vm.set_user_memory_region(PLUGGED_SLOT, PLUGGED, PAGE_BYTES, memory, 0)
    address = PLUGGED if machine.helper.by_gpa else machine.memory.size
    machine.mirror.vm.set_user_memory_region(
        PLUGGED_SLOT, machine.helper.descriptor.window + address, PAGE_BYTES, memory, 0
    )
    return address


COLUMNS = (
    Column("new-slots", "memory slots besides those of the guest's RAM", "slots", new_slots),
    Column("missing-calls", "KVM calls that Linux does not have, for SEV or SNP", "calls", missing_calls),
    Column(
        "missing-memory",
        "memory that Linux lets no process map, where registers are encrypted",
        "slots",
        missing_memory,
    ),
    Column("hot-plug", "memory plugged while the helper runs: what that needs", "slots", hot_plug),
)
