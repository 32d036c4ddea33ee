"""Mirror VMs: what KVM lets them be and do.

Sources: Linux v6.15, arch/x86/kvm/svm/sev.c unless a test names another file.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

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
    fails,
    machine,
    run_to_halt,
)
from mh_builder.parts import PARTS
from mh_emulator.cpu.registers import Registers
from mh_emulator.kvm import Vm
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.platform import Platform
from mh_emulator.psp.command import GuestState
from mh_emulator.psp.packet import Packet

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
    """Every command: ENOTTY without SEV."""
    platform = machine()
    with fails(errno.ENOTTY, ioctl):
        COMMANDS[ioctl](platform.create_vm(), platform)


@pytest.mark.parametrize("ioctl", COMMANDS)
def test_what_a_mirror_may_do(ioctl: str) -> None:
    """is_cmd_allowed_from_mirror(): everything else is EINVAL, whatever its arguments."""
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
    """sev_vm_copy_enc_context_from(): no SEV guest, no vCPUs; the source one, and no mirror, and another VM."""
    platform = machine()
    owner, plain = platform.create_vm(), platform.create_vm()
    owner.sev_init()
    with fails(errno.EINVAL, COPY_CONTEXT):
        owner.copy_enc_context_from(owner)
    with fails(errno.EINVAL, COPY_CONTEXT):
        plain.copy_enc_context_from(plain)
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
    """sev_vm_copy_enc_context_from() copies asid, fd, es_active and handle by value."""
    platform = machine()
    owner, early, late = (platform.create_vm() for _ in range(3))
    owner.sev_init()
    early.copy_enc_context_from(owner)
    owner.sev_launch_start(0)
    late.copy_enc_context_from(owner)
    assert early.sev_guest_status().state is GuestState.UNINIT
    assert late.sev_guest_status() == owner.sev_guest_status()
    assert late.asid == owner.asid


def test_an_owner_lives_as_long_as_its_mirrors() -> None:
    """A mirror holds a reference, so the owner can be closed first; sev_vm_destroy() comes last."""
    guest = Guest()
    guest.launch()
    mirror = guest.platform.create_vm()
    mirror.copy_enc_context_from(guest.vm)
    handle = guest.vm.handle
    guest.vm.close()
    assert mirror.sev_guest_status().state is GuestState.RUNNING
    mirror.close()
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
