"""KVM: slots, the launch, mirrors, and the errors that Linux returns."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from emulator_tests.machine.guests import (
    DATA,
    HEAP,
    HEAP_WORD,
    MEMORY,
    PAGE,
    SHARED,
    TEXT,
    Guest,
    PageTables,
    assemble,
    run_to_halt,
)
from mh_emulator.exits import Exit, Reason
from mh_emulator.kvm import KvmError, Vm
from mh_emulator.owner import GuestOwner, OwnerRefuses
from mh_emulator.parts import PARTS
from mh_emulator.platform import Platform
from mh_emulator.psp.firmware import Measurement
from mh_emulator.psp.session import Packet
from mh_emulator.psp.state import GuestState, Policy
from mh_emulator.psp.status import Status
from mh_emulator.registers import Registers


def fails(number: int, ioctl: str) -> AbstractContextManager[pytest.ExceptionInfo[KvmError]]:
    return pytest.raises(KvmError, match=f"^{ioctl}: {errno.errorcode[number]}")


def machine(part: str = "milan") -> Platform:
    return Platform(PARTS[part], 16 << 20, 1)


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


COMMANDS: dict[str, Callable[[Vm, Platform], object]] = {
    "KVM_SEV_LAUNCH_START": lambda vm, _platform: vm.sev_launch_start(0),
    "KVM_SEV_LAUNCH_UPDATE_DATA": lambda vm, platform: vm.sev_launch_update_data(platform.memory(PAGE), 0, PAGE),
    "KVM_SEV_LAUNCH_MEASURE": lambda vm, _platform: vm.sev_launch_measure(),
    "KVM_SEV_LAUNCH_SECRET": lambda vm, platform: vm.sev_launch_secret(
        Packet(bytes(52), bytes(16)), platform.memory(PAGE), 0
    ),
    "KVM_SEV_LAUNCH_FINISH": lambda vm, _platform: vm.sev_launch_finish(),
    "KVM_SEV_GUEST_STATUS": lambda vm, _platform: vm.sev_guest_status(),
    "KVM_SEV_DBG_DECRYPT": lambda vm, platform: vm.sev_dbg_decrypt(
        (platform.memory(PAGE), 0), (platform.memory(PAGE), 0), PAGE
    ),
    "KVM_SEV_DBG_ENCRYPT": lambda vm, platform: vm.sev_dbg_encrypt(
        (platform.memory(PAGE), 0), (platform.memory(PAGE), 0), PAGE
    ),
}
ON_MIRRORS = {"KVM_SEV_GUEST_STATUS", "KVM_SEV_DBG_DECRYPT", "KVM_SEV_DBG_ENCRYPT"}


@pytest.mark.parametrize("ioctl", COMMANDS)
def test_sev_commands_on_a_plain_vm(ioctl: str) -> None:
    platform = machine()
    with fails(errno.ENOTTY, ioctl):
        COMMANDS[ioctl](platform.create_vm(), platform)


@pytest.mark.parametrize("ioctl", COMMANDS)
def test_what_a_mirror_may_do(ioctl: str) -> None:
    guest = Guest()
    guest.launch()
    mirror = guest.platform.create_vm()
    mirror.copy_enc_context_from(guest.vm)
    if ioctl in ON_MIRRORS:
        COMMANDS[ioctl](mirror, guest.platform)
        return
    with fails(errno.EINVAL, ioctl):
        COMMANDS[ioctl](mirror, guest.platform)


COPY_CONTEXT = "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM"


def test_who_can_become_a_mirror_of_whom() -> None:
    platform = machine()
    owner, plain = platform.create_vm(), platform.create_vm()
    owner.sev_init()
    mirror = platform.create_vm()
    mirror.copy_enc_context_from(owner)
    with fails(errno.EINVAL, COPY_CONTEXT):
        platform.create_vm().copy_enc_context_from(plain)
    with fails(errno.EINVAL, COPY_CONTEXT):
        platform.create_vm().copy_enc_context_from(mirror)
    with fails(errno.EINVAL, COPY_CONTEXT):
        mirror.copy_enc_context_from(owner)
    encrypted = platform.create_vm()
    encrypted.sev_init()
    with fails(errno.EINVAL, COPY_CONTEXT):
        encrypted.copy_enc_context_from(owner)
    with_vcpu = platform.create_vm()
    with_vcpu.create_vcpu()
    with fails(errno.EINVAL, COPY_CONTEXT):
        with_vcpu.copy_enc_context_from(owner)


def test_a_mirror_copies_the_handle_as_it_is_at_that_moment() -> None:
    platform = machine()
    owner, early, late = (platform.create_vm() for _ in range(3))
    owner.sev_init()
    early.copy_enc_context_from(owner)
    owner.sev_launch_start(0)
    late.copy_enc_context_from(owner)
    assert early.sev_guest_status().state is GuestState.UNINIT
    assert late.sev_guest_status() == owner.sev_guest_status()
    assert late.asid == owner.asid


def test_sev_init_comes_once_and_before_vcpus() -> None:
    platform = machine()
    vm, late = platform.create_vm(), platform.create_vm()
    vm.sev_init()
    late.create_vcpu()
    for one in (vm, late):
        with fails(errno.EINVAL, "KVM_SEV_INIT"):
            one.sev_init()


def test_a_mirror_cannot_be_initialised() -> None:
    platform = machine()
    owner, mirror = platform.create_vm(), platform.create_vm()
    owner.sev_init()
    mirror.copy_enc_context_from(owner)
    with fails(errno.EINVAL, "KVM_SEV_INIT"):
        mirror.sev_init()


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
    vms[3].destroy()
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
    platform = machine()
    vm, memory = platform.create_vm(), platform.memory(8 * PAGE)
    vm.sev_init()
    vm.sev_launch_start(0)
    with fails(errno.EINVAL, "KVM_SEV_LAUNCH_UPDATE_DATA"):
        vm.sev_launch_update_data(memory, 0, 0)
    with fails(errno.EFAULT, "KVM_SEV_LAUNCH_UPDATE_DATA"):
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


def test_destroying_needs_mirrors_gone_and_frees_the_guest() -> None:
    guest = Guest()
    guest.launch()
    mirror = guest.platform.create_vm()
    mirror.copy_enc_context_from(guest.vm)
    with fails(errno.EBUSY, "close"):
        guest.vm.destroy()
    mirror.destroy()
    handle = guest.vm.handle
    guest.vm.destroy()
    assert guest.platform.psp.guest_status(handle).state is GuestState.UNINIT
    assert guest.platform.dram.observers == []


@pytest.mark.parametrize("part", PARTS)
def test_a_mirror_reads_the_guest_through_a_map_of_its_own(part: str) -> None:
    guest = Guest(part)
    main = guest.launch(f"again: inc qword ptr [{HEAP}]\n hlt\n jmp again")
    # All of the guest's memory 4 GiB higher, and below it code that only the mirror has.
    window = 1 << 32
    tables = PageTables(guest.tables.c_mask)
    own = guest.platform.memory(MEMORY)
    tables.map(TEXT, TEXT, 0x21)
    tables.map(SHARED, HEAP, DATA, private=False)
    tables.map(window + HEAP, window + HEAP, DATA)
    asid = guest.vm.asid
    for address, entry in tables.entries.items():
        guest.platform.dram.write_private(asid, own.spa(address), entry.to_bytes(8, "little"))
    code = assemble(f"again: mov rdi, {window + HEAP}\n add qword ptr [rdi], 10\n mov rax, [rdi]\n"
                    f"mov [{SHARED}], rax\n hlt\n jmp again")  # fmt: skip
    guest.platform.dram.write_private(asid, own.spa(TEXT), code)
    mirror = guest.platform.create_vm()
    mirror.copy_enc_context_from(guest.vm)
    mirror.set_user_memory_region(0, 0, MEMORY, own, 0)
    mirror.set_user_memory_region(1, window, MEMORY, guest.memory, 0)
    helper = mirror.create_vcpu()
    helper.set_registers(Registers.long_mode(TEXT, 0, guest.cr3))
    for turn in range(1, 4):
        run_to_halt(main)
        assert helper.run() == Exit(Reason.HLT)
        expected = HEAP_WORD + 11 * turn
        assert helper.get_registers().rax == expected
        assert guest.word(HEAP) == expected
        assert own.read_raw(HEAP, 8) == expected.to_bytes(8, "little")
    assert mirror.spa(window + HEAP) == guest.vm.spa(HEAP)
    assert mirror.spa(HEAP) != guest.vm.spa(HEAP)


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
    assert first.psp.pdh_public() == again.psp.pdh_public() != second.psp.pdh_public()
    raw = []
    for platform in (first, again, second):
        vm, memory = platform.create_vm(), platform.memory(PAGE)
        vm.sev_init()
        vm.sev_launch_start(0)
        vm.sev_launch_update_data(memory, 0, PAGE)
        raw.append(memory.read_raw(0, PAGE))
    assert raw[0] == raw[1] != raw[2]


def launched(owner: GuestOwner, contents: bytes, policy: int | None = None) -> tuple[Platform, Vm]:
    platform = machine()
    vm, memory = platform.create_vm(), platform.memory(4 * PAGE)
    vm.set_user_memory_region(0, 0, 4 * PAGE, memory, 0)
    memory.write_raw(0, contents)
    vm.sev_init()
    vm.sev_launch_start(owner.policy if policy is None else policy, owner.open_session(platform.psp.pdh_public()))
    vm.sev_launch_update_data(memory, 0, len(contents))
    return platform, vm


CONTENTS = bytes(range(256)) * 32


def test_the_owners_secret_lands_in_private_memory() -> None:
    owner = GuestOwner(Policy.NODBG | Policy.NOKS)
    platform, vm = launched(owner, CONTENTS)
    packet = owner.wrap_secret(
        vm.sev_launch_measure(), [CONTENTS[:PAGE], CONTENTS[PAGE:]], b"a transport key, 33 bytes of secret"
    )
    memory = platform.memory(PAGE)
    vm.sev_launch_secret(packet, memory, 0x40)
    vm.sev_launch_finish()
    assert platform.dram.read_private(vm.asid, memory.spa(0x40), 48) == b"a transport key, 33 bytes of secret".ljust(
        48, b"\0"
    )
    assert b"transport" not in memory.read_raw(0, PAGE)
    assert b"transport" not in packet.data


def test_the_owner_refuses_other_contents() -> None:
    owner = GuestOwner(0)
    _, vm = launched(owner, CONTENTS[:-1] + b"X")
    with pytest.raises(OwnerRefuses, match="launch measurement: expected .* found ") as refusal:
        owner.wrap_secret(vm.sev_launch_measure(), [CONTENTS], b"secret")
    assert "\n" not in str(refusal.value)


def test_the_owner_refuses_another_order_of_the_same_contents() -> None:
    owner = GuestOwner(0)
    _, vm = launched(owner, CONTENTS[:PAGE] + bytes(PAGE))
    with pytest.raises(OwnerRefuses):
        owner.wrap_secret(vm.sev_launch_measure(), [bytes(PAGE), CONTENTS[:PAGE]], b"secret")


def test_a_host_that_changes_the_policy_gets_no_session_and_without_one_no_secret() -> None:
    owner = GuestOwner(Policy.NODBG)
    with pytest.raises(KvmError, match="BAD_MEASUREMENT"):
        launched(owner, CONTENTS, policy=0)
    platform = machine()
    vm = platform.create_vm()
    vm.sev_init()
    vm.sev_launch_start(0)
    with pytest.raises(OwnerRefuses):
        owner.wrap_secret(vm.sev_launch_measure(), [], b"secret")
    with pytest.raises(OwnerRefuses, match="guest policy: expected 0x1, found 0x0"):
        owner.check_status_policy(vm.sev_guest_status().policy)
    with pytest.raises(OwnerRefuses, match="none opened"):
        GuestOwner(0).wrap_secret(Measurement(bytes(32), bytes(16)), [], b"secret")


def test_the_owner_refuses_older_firmware() -> None:
    owner = GuestOwner(0, version=(1, 55, 26))
    _, vm = launched(owner, CONTENTS)
    with pytest.raises(OwnerRefuses):
        owner.wrap_secret(vm.sev_launch_measure(), [CONTENTS], b"secret")
