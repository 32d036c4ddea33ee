"""SEND and RECEIVE through KVM: what it refuses before it asks the firmware, and what it passes on."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from emulator_tests.machine.guests import fails, machine
from emulator_tests.psp.rig import DATA, PAGE, packet, receiver, session
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm import KvmError, Vm
from mh_emulator.platform import Platform
from mh_emulator.psp.command import GuestState
from mh_emulator.psp.identity import PlatformCertificates
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.session import Session
from mh_emulator.psp.status import Status
from mh_emulator.psp.transport import Receiver


def running(platform: Platform, policy: int = 0) -> tuple[Vm, UserMemory]:
    vm, memory = platform.create_vm(), platform.memory(4 * PAGE)
    vm.sev_init()
    vm.sev_launch_start(policy)
    memory.write_raw(0, DATA)
    vm.sev_launch_update_data(memory, 0, 4 * PAGE)
    vm.sev_launch_measure()
    vm.sev_launch_finish()
    return vm, memory


def offer(platform: Platform, policy: int = 0) -> Session:
    return session(platform.psp.pdh_cert_export().pdh, policy)


COMMANDS: dict[str, Callable[[Vm, Platform], object]] = {
    "KVM_SEV_SEND_START": lambda vm, platform: vm.sev_send_start(receiver(platform.psp)),
    "KVM_SEV_SEND_UPDATE_DATA": lambda vm, platform: vm.sev_send_update_data(platform.memory(PAGE), 0, PAGE),
    "KVM_SEV_SEND_FINISH": lambda vm, _platform: vm.sev_send_finish(),
    "KVM_SEV_SEND_CANCEL": lambda vm, _platform: vm.sev_send_cancel(),
    "KVM_SEV_RECEIVE_START": lambda vm, platform: vm.sev_receive_start(0, offer(platform)),
    "KVM_SEV_RECEIVE_UPDATE_DATA": lambda vm, platform: vm.sev_receive_update_data(
        packet(2, DATA), platform.memory(PAGE), 0
    ),
    "KVM_SEV_RECEIVE_FINISH": lambda vm, _platform: vm.sev_receive_finish(),
}


@pytest.mark.parametrize("ioctl", COMMANDS)
def test_not_on_a_plain_vm_and_not_on_a_mirror(ioctl: str) -> None:
    """sev_receive_update_data() alone says EINVAL without SEV; a mirror may send and receive nothing."""
    platform = machine()
    with fails(errno.EINVAL if ioctl == "KVM_SEV_RECEIVE_UPDATE_DATA" else errno.ENOTTY, ioctl):
        COMMANDS[ioctl](platform.create_vm(), platform)
    owner, _ = running(platform)
    mirror = platform.create_vm()
    mirror.copy_enc_context_from(owner)
    with fails(errno.EINVAL, ioctl):
        COMMANDS[ioctl](mirror, platform)


def test_vmsas_have_no_ioctl() -> None:
    vm, _ = running(machine())
    with fails(errno.EINVAL, "KVM_SEV_SEND_UPDATE_VMSA"):
        vm.sev_send_update_vmsa()
    with fails(errno.EINVAL, "KVM_SEV_RECEIVE_UPDATE_VMSA"):
        vm.sev_receive_update_vmsa()


def test_a_guest_moves() -> None:
    here, there = machine(), Platform(machine("genoa").part, 16 << 20, 2)
    vm, memory = running(here, Policy.NODBG)
    departure = vm.sev_send_start(receiver(there.psp))
    new, target = there.create_vm(), there.memory(2 * PAGE)
    new.sev_init()
    arrival = Session(here.psp.pdh_cert_export().pdh, departure.session)
    new.sev_receive_start(departure.policy, arrival)
    new.sev_receive_update_data(vm.sev_send_update_data(memory, 0, PAGE), target, PAGE)
    new.sev_receive_finish()
    vm.sev_send_finish()
    assert there.dram.read_private(new.asid, target.spa(PAGE), PAGE) == DATA
    assert new.sev_guest_status() == (Policy.NODBG, new.asid, GuestState.RUNNING)
    assert vm.sev_guest_status().state is GuestState.SENT
    for one in (new, vm):
        one.close()


def test_all_certificates_must_be_there_whatever_the_policy() -> None:
    platform = machine()
    vm, _ = running(platform)
    pdh, chain = receiver(platform.psp).platform
    for bad in (
        Receiver(PlatformCertificates(b"", chain), b"x"),
        Receiver(PlatformCertificates(pdh, b""), b"x"),
        Receiver(PlatformCertificates(pdh, chain), b""),
        Receiver(PlatformCertificates(pdh, bytes(0x4001)), b"x"),
    ):
        with fails(errno.EINVAL, "KVM_SEV_SEND_START"):
            vm.sev_send_start(bad)
    vm.sev_send_start(Receiver(PlatformCertificates(pdh, b"x"), b"x"))


def test_one_page_at_a_time() -> None:
    platform = machine()
    vm, memory = running(platform)
    vm.sev_send_start(receiver(platform.psp))
    for offset, size in ((0, 0), (0, PAGE + 16), (16, PAGE), (2 * PAGE - 16, 32)):
        with fails(errno.EINVAL, "KVM_SEV_SEND_UPDATE_DATA"):
            vm.sev_send_update_data(memory, offset, size)
    with fails(errno.ENOMEM, "KVM_SEV_SEND_UPDATE_DATA"):
        vm.sev_send_update_data(memory, 4 * PAGE, PAGE)
    assert len(vm.sev_send_update_data(memory, 16, PAGE - 16).data) == PAGE - 16

    new = platform.create_vm()
    new.sev_init()
    new.sev_receive_start(0, offer(platform))
    good = packet(2, DATA)
    for bad, offset, size in (
        (good, 16, PAGE),
        (good, 0, PAGE + 16),
        (good, 0, 0),
        (Packet(b"", good.data), 0, PAGE),
        (Packet(good.header, b""), 0, PAGE),
        (Packet(good.header, bytes(0x4001)), 0, PAGE),
    ):
        with fails(errno.EINVAL, "KVM_SEV_RECEIVE_UPDATE_DATA"):
            new.sev_receive_update_data(bad, memory, offset, size)
    new.sev_receive_update_data(good, memory, 2 * PAGE)
    assert platform.dram.read_private(new.asid, memory.spa(2 * PAGE), PAGE) == DATA


def test_a_second_start_dies_in_the_firmware_and_leaves_the_first_alone() -> None:
    platform = machine()
    vm, _ = running(platform)
    handle = vm.handle
    with pytest.raises(KvmError, match="ASID_OWNED") as caught:
        vm.sev_receive_start(0, offer(platform))
    assert caught.value.status is Status.ASID_OWNED
    assert vm.handle == handle
    assert platform.psp.platform_status().guests == 1
    for bad in (Session(b"", bytes(128)), Session(offer(platform).certificate, b"")):
        with fails(errno.EINVAL, "KVM_SEV_RECEIVE_START"):
            vm.sev_receive_start(0, bad)


def test_the_handle_of_user_space_goes_to_the_firmware() -> None:
    platform = machine()
    vm, memory = running(platform, Policy.NODBG)
    sharing = platform.create_vm()
    sharing.sev_init()
    sharing.sev_receive_start(Policy.NODBG, offer(platform, Policy.NODBG), vm.handle)
    assert platform.dram.read_private(sharing.asid, memory.spa(0), PAGE) == DATA
    assert sharing.handle != vm.handle
