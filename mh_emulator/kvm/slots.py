"""Memory slots: what lies behind a guest-physical address.

Source: Linux, virt/kvm/kvm_main.c (kvm_set_memory_region), arch/x86/kvm/x86.c (kvm_arch_prepare_memory_region).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.process import UserMemory
from mh_emulator.dram.ranges import NativeRanges, Range
from mh_emulator.kvm.errors import KvmError

_IOCTL = "KVM_SET_USER_MEMORY_REGION"


class Slots:
    """The slots of one VM on a part with that MAXPHYADDR."""

    def __init__(self, physical_bits: int) -> None:
        self._physical_bits = physical_bits
        self._slots: dict[int, Range] = {}
        self.native = NativeRanges()
        """The same, for native code."""

    def set(self, number: int, slot: Range) -> None:
        """Make, move or, with size 0, delete a slot. EINVAL, EEXIST."""
        old = self._slots.get(number)
        if slot.size == 0:
            if old is None:
                raise KvmError(errno.EINVAL, _IOCTL)
            del self._slots[number]
        else:
            self._check(number, slot, old)
            self._slots[number] = slot
        self.native.show(self._slots.values())

    def spa(self, gpa: int) -> int | None:
        """System physical address behind `gpa`, or None where no slot is."""
        slot = self._slot(gpa)
        return None if slot is None else slot.memory.spa(slot.offset + gpa - slot.gpa)

    @property
    def memories(self) -> list[UserMemory]:
        """What they show of the host process, each mapping once, by the number of the slot."""
        return list({id(slot.memory): slot.memory for _, slot in sorted(self._slots.items())}.values())

    def covers(self, gpa: int) -> bool:
        """Whether a slot is at `gpa`; unlike `spa` it needs no page of the process there."""
        return self._slot(gpa) is not None

    def pages(self, gpa: int, size: int) -> Iterator[int]:
        """The pages of slots between `gpa` and `gpa` + `size`."""
        for slot in self._slots.values():
            yield from range(max(gpa, slot.gpa), min(gpa + size, slot.gpa + slot.size), PAGE_BYTES)

    def _slot(self, gpa: int) -> Range | None:
        for slot in self._slots.values():
            if 0 <= gpa - slot.gpa < slot.size:
                return slot
        return None

    def _check(self, number: int, slot: Range, old: Range | None) -> None:
        gpa, size, memory, offset = slot
        is_outside = gpa < 0 or offset < 0 or offset + size > memory.size or (gpa + size - 1) >> self._physical_bits
        if (gpa | size | offset) % PAGE_BYTES or is_outside:
            raise KvmError(errno.EINVAL, _IOCTL)
        # Only the place can change.
        if old is not None and old[1:] != slot[1:]:
            raise KvmError(errno.EINVAL, _IOCTL)
        for other_number, other in self._slots.items():
            if other_number != number and gpa < other.gpa + other.size and other.gpa < gpa + size:
                raise KvmError(errno.EEXIST, _IOCTL)
