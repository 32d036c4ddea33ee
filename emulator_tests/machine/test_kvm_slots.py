"""Memory slots, and the errors that Linux returns.

Sources: Linux v6.15, virt/kvm/kvm_main.c (kvm_set_memory_region).
"""

from __future__ import annotations

import errno

import pytest

from emulator_tests.machine.guests import (
    DATA,
    MEMORY,
    PAGE,
    Guest,
    fails,
    machine,
    run_to_halt,
)
from mh_emulator.kvm.exits import Exit, Reason

SET_REGION = "KVM_SET_USER_MEMORY_REGION"


@pytest.mark.parametrize(
    ("gpa", "size", "offset"),
    [(1, PAGE, 0), (0, PAGE + 1, 0), (0, PAGE, 8), (0, 16 * PAGE, PAGE), (-PAGE, PAGE, 0), (1 << 48, PAGE, 0)],
)
def test_bad_slots(gpa: int, size: int, offset: int) -> None:
    platform = machine()
    vm = platform.create_vm()
    with fails(errno.EINVAL, SET_REGION):
        vm.set_user_memory_region(0, gpa, size, platform.memory(16 * PAGE), offset)


def test_slots_overlap_move_and_go() -> None:
    platform = machine()
    vm, memory = platform.create_vm(), platform.memory(16 * PAGE)
    vm.set_user_memory_region(0, 0x1_0000, 4 * PAGE, memory, 0)
    for gpa in (0x1_0000 - 3 * PAGE, 0x1_0000 + 3 * PAGE):
        with fails(errno.EEXIST, SET_REGION):
            vm.set_user_memory_region(1, gpa, 4 * PAGE, memory, 0)
    vm.set_user_memory_region(1, 0x1_0000 + 4 * PAGE, 4 * PAGE, memory, 0)
    assert vm.spa(0x1_0000 + 5) == vm.spa(0x1_4000 + 5) == memory.spa(5)
    vm.set_user_memory_region(0, 0x8_0000, 4 * PAGE, memory, 0)
    assert vm.spa(0x1_0000) is None
    assert vm.spa(0x8_3FFF) == memory.spa(0x3FFF)
    for size, offset in ((2 * PAGE, 0), (4 * PAGE, PAGE)):
        with fails(errno.EINVAL, SET_REGION):
            vm.set_user_memory_region(0, 0x8_0000, size, memory, offset)
    vm.set_user_memory_region(0, 0, 0, memory, 0)
    assert vm.spa(0x8_0000) is None
    with fails(errno.EINVAL, SET_REGION):
        vm.set_user_memory_region(0, 0, 0, memory, 0)


def test_a_running_guest_notices_a_changed_slot() -> None:
    guest = Guest()
    extra = guest.platform.memory(2 * PAGE)
    window = MEMORY
    guest.tables.map(window, window, DATA, private=False)
    guest.vm.set_user_memory_region(1, window, PAGE, extra, 0)
    vcpu = guest.launch(f"again: mov rax, [{window}]\n hlt\n jmp again")
    extra.write_raw(0, b"\1")
    extra.write_raw(PAGE, b"\2")
    assert run_to_halt(vcpu).rax == 1
    guest.vm.set_user_memory_region(1, 0, 0, extra, 0)
    assert vcpu.run() == Exit(Reason.MMIO, gpa=window, size=8)
    guest.vm.set_user_memory_region(1, window, PAGE, extra, PAGE)
    assert run_to_halt(vcpu).rax == 2
