"""The launch through KVM, and the errors that Linux returns.

Sources: Linux v6.15, arch/x86/kvm/svm/sev.c unless a test names another file.
"""

from __future__ import annotations

import errno

import pytest

from emulator_tests.machine.guests import (
    DATA,
    HEAP,
    HEAP_WORD,
    MEMORY,
    PAGE,
    Guest,
    fails,
    machine,
    run_to_halt,
)
from mh_builder.parts import PARTS
from mh_emulator.kvm import KvmError
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.watched import Call
from mh_emulator.platform import Platform
from mh_emulator.psp.command import GuestState
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.status import Status


def test_asids_run_out_and_come_back_clean() -> None:
    platform = machine("naples")
    vms = [platform.create_vm() for _ in range(11)]
    for vm in vms:
        vm.sev_init()
        vm.sev_launch_start(0)
        vm.sev_launch_measure()
        vm.sev_launch_finish()
    assert sorted(vm.asid for vm in vms) == list(range(5, 16))
    extra = platform.create_vm()
    with fails(errno.EBUSY, "KVM_SEV_INIT"):
        extra.sev_init()
    freed = vms[3].asid
    vms[3].close()
    extra.sev_init()
    extra.sev_launch_start(0)
    assert extra.asid == freed


def test_a_second_start_dies_in_the_firmware_and_leaves_the_first_alone() -> None:
    platform = machine()
    vm = platform.create_vm()
    vm.sev_init()
    handle = vm.sev_launch_start(0)
    with pytest.raises(KvmError, match=r"^KVM_SEV_LAUNCH_START: EIO \(firmware: ASID_OWNED\)$") as caught:
        vm.sev_launch_start(0)
    assert (caught.value.errno, caught.value.status) == (errno.EIO, Status.ASID_OWNED)
    assert (vm.handle, vm.sev_guest_status().state) == (handle, GuestState.LUPDATE)
    assert platform.psp.guest_status(handle + 1).state is GuestState.UNINIT


def test_watchers_see_every_ioctl_also_one_that_is_refused() -> None:
    platform = machine()
    seen: list[str] = []
    platform.watchers.append(lambda vm: vm.watchers.append(lambda call: seen.append(call.name)))
    vm, mirror = platform.create_vm(), platform.create_vm()
    calls: list[Call] = []
    vm.watchers.append(calls.append)
    with fails(errno.ENOTTY, "KVM_SEV_LAUNCH_START"):
        vm.sev_launch_start(0)
    vm.sev_init()
    mirror.copy_enc_context_from(vm)
    mirror.create_vcpu()
    assert seen == ["KVM_SEV_LAUNCH_START", "KVM_SEV_INIT", "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM", "KVM_CREATE_VCPU"]
    assert [(call.name, call.arguments) for call in calls] == [("KVM_SEV_LAUNCH_START", (0,)), ("KVM_SEV_INIT", ())]
    assert isinstance(calls[0].result, KvmError)
    assert calls[1].result is None


def test_watchers_see_what_vcpus_do() -> None:
    guest = Guest(es=True)
    calls: list[Call] = []
    guest.vm.watchers.append(calls.append)
    vcpu = guest.launch("hlt")
    assert vcpu.run() == Exit(Reason.HLT)
    with fails(errno.EINVAL, "KVM_GET_REGS"):
        vcpu.get_registers()
    assert [call.name for call in calls if "_REG" in call.name or call.name == "KVM_RUN"] == [
        "KVM_SET_REGS", "KVM_GET_REGS", "KVM_RUN", "KVM_GET_REGS"
    ]  # fmt: skip
    assert calls[-2].result == Exit(Reason.HLT)
    assert isinstance(calls[-1].result, KvmError)


def test_firmware_statuses_reach_the_caller() -> None:
    platform = machine()
    vm = platform.create_vm()
    vm.sev_init()
    vm.sev_launch_start(Policy.NODBG)
    with pytest.raises(KvmError, match="INVALID_GUEST_STATE"):
        vm.sev_launch_finish()
    with pytest.raises(KvmError, match="POLICY_FAILURE"):
        vm.sev_dbg_decrypt((platform.memory(PAGE), 0), (platform.memory(PAGE), 0), 16)
    with pytest.raises(KvmError, match="INVALID_ADDRESS"):
        vm.sev_launch_update_data(platform.memory(PAGE), 8, 16)


def test_ranges_of_user_memory() -> None:
    """sev_pin_memory(): EINVAL for nothing, ENOMEM where pages are not mapped; psp_copy_user_blob(): 16 KiB."""
    platform = machine()
    vm, memory = platform.create_vm(), platform.memory(8 * PAGE)
    vm.sev_init()
    vm.sev_launch_start(0)
    with fails(errno.EINVAL, "KVM_SEV_LAUNCH_UPDATE_DATA"):
        vm.sev_launch_update_data(memory, 0, 0)
    with fails(errno.ENOMEM, "KVM_SEV_LAUNCH_UPDATE_DATA"):
        vm.sev_launch_update_data(memory, PAGE, 8 * PAGE)
    vm.sev_launch_measure()
    with fails(errno.EINVAL, "KVM_SEV_LAUNCH_SECRET"):
        vm.sev_launch_secret(Packet(bytes(52), bytes(2 * 0x400)), memory, PAGE - 0x400)
    with fails(errno.EINVAL, "KVM_SEV_LAUNCH_SECRET"):
        vm.sev_launch_secret(Packet(bytes(52), bytes(0x4010)), memory, 0)


def test_debugging_across_page_borders() -> None:
    guest = Guest()
    guest.launch()
    out = guest.platform.memory(2 * PAGE)
    guest.vm.sev_dbg_decrypt((guest.memory, HEAP + 0x10), (out, 0xFF0), 0x40)
    assert out.read_raw(0xFF0, 0x40) == HEAP_WORD.to_bytes(8, "little") * 8
    guest.vm.sev_dbg_encrypt((out, 0xFF0), (guest.memory, HEAP + 0xFE0), 0x40)
    assert guest.private(HEAP + 0xFE0, 0x40) == HEAP_WORD.to_bytes(8, "little") * 8


def test_a_vm_with_another_key_sees_garbage_in_the_same_memory() -> None:
    guest = Guest()
    guest.launch()
    other = Guest()
    other.platform, other.vm = guest.platform, guest.platform.create_vm()
    other.memory = guest.platform.memory(MEMORY)
    other.vm.set_user_memory_region(0, 0, MEMORY, other.memory, 0)
    other.vm.set_user_memory_region(1, MEMORY, MEMORY, guest.memory, 0)
    other.tables.map(HEAP, MEMORY + HEAP, DATA)
    vcpu = other.launch(f"mov rax, [{HEAP}]\n hlt")
    assert run_to_halt(vcpu).rax != HEAP_WORD
    assert guest.word(HEAP) == HEAP_WORD


def test_platforms_differ_in_everything_random_and_agree_with_themselves() -> None:
    first, again, second = (Platform(PARTS["milan"], 16 << 20, seed) for seed in (1, 1, 2))
    assert first.dram.base_spa == again.dram.base_spa != second.dram.base_spa
    keys = [platform.psp.pdh_cert_export().pdh for platform in (first, again, second)]
    assert keys[0] == keys[1] != keys[2]
    raw = []
    for platform in (first, again, second):
        vm, memory = platform.create_vm(), platform.memory(PAGE)
        vm.sev_init()
        vm.sev_launch_start(0)
        vm.sev_launch_update_data(memory, 0, PAGE)
        raw.append(memory.read_raw(0, PAGE))
    assert raw[0] == raw[1] != raw[2]
