"""KVM for SNP: its launch, what it refuses, and what a guest asks of it.

Source of every errno and of every answer: Linux, arch/x86/kvm/svm/sev.c.
"""

from __future__ import annotations

import errno

import pytest

from emulator_tests.machine.guests import HEAP, PAGE, fails
from emulator_tests.snp.machine import FRESH, GHCB, MEMORY, SECRETS, SnpGuest
from mh_builder.firmware.snp import VMSA_GPA, PageType, SnpDigest, SnpPage
from mh_builder.parts import PARTS
from mh_emulator.cpu import vmsa
from mh_emulator.kvm import KvmError
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.host_memory import HostFaultError
from mh_emulator.psp.snp.message import HEADER_BYTES, Header, MessageType, seal, unseal
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.psp.snp.report import SIGNED_BYTES
from mh_emulator.psp.status import Status
from mh_emulator.rmp.entry import PageState
from mh_emulator.snp.kvm.stage import KvmStage

START, UPDATE, FINISH = (f"KVM_SEV_SNP_LAUNCH_{name}" for name in ("START", "UPDATE", "FINISH"))


def test_digest_is_that_of_the_pages_and_of_the_vmsas() -> None:
    guest = SnpGuest(vcpus=2)
    guest.launch("hlt")
    expected = SnpDigest()
    pages = {address & -PAGE for address in (*guest.contents, *guest.tables.entries)}
    for page in sorted(pages):
        expected.add(SnpPage(PageType.NORMAL, page, guest.memory.read_raw(page, PAGE)))
    expected.add(SnpPage(PageType.SECRETS, SECRETS))
    for _ in range(2):
        expected.add(SnpPage(PageType.VMSA, VMSA_GPA, vmsa.make(guest.registers(), fpu=True, features=1)))
    assert measurement(guest) == expected.ld


def measurement(guest: SnpGuest) -> bytes:
    key = guest.private(SECRETS + 0x20, 32)
    body = bytes(64) + bytes(32)
    status, page = guest.vm.request(seal(key, Header(1, MessageType.REPORT_REQ, len(body), 0), body))
    assert status == 0
    clear = page[:HEADER_BYTES]
    opened = unseal(key, clear, page[HEADER_BYTES : HEADER_BYTES + Header.parse(clear).size])
    assert opened is not None
    assert len(opened) >= SIGNED_BYTES
    return opened[0x20 + 0x90 : 0x20 + 0x90 + 48]


@pytest.mark.parametrize("policy", [1 << 18 | DEFAULT_POLICY, 1 << 16, 1 << 21 | DEFAULT_POLICY, 1 << 63])
def test_launch_start_takes_no_agent_and_no_unknown_policy(policy: int) -> None:
    vm = SnpGuest().vm
    vm.sev_init2()
    with fails(errno.EINVAL, START):
        vm.snp_launch_start(policy)
    vm.snp_launch_start(DEFAULT_POLICY)
    with fails(errno.EINVAL, START):
        vm.snp_launch_start(DEFAULT_POLICY)


def test_launch_start_that_the_firmware_refuses_leaves_nothing() -> None:
    guest = SnpGuest()
    guest.vm.sev_init2()
    with pytest.raises(KvmError) as told:
        guest.vm.snp_launch_start(SnpPolicy.MUST_BE_ONE)
    assert (told.value.errno, told.value.status) == (errno.EIO, Status.POLICY_FAILURE)
    assert guest.platform.rmp.pages_of(0) == 0
    assert [entry for entry in guest.platform.rmp._entries.values() if entry.assigned] == []
    guest.vm.snp_launch_start(DEFAULT_POLICY)


@pytest.mark.parametrize("flags", [1, 2, 1 << 15])
def test_no_flags_are_known(flags: int) -> None:
    guest = SnpGuest()
    vm = guest.vm
    with fails(errno.EINVAL, "KVM_SEV_INIT2"):
        vm.sev_init2(flags)
    vm.sev_init2()
    with fails(errno.EINVAL, START):
        vm.snp_launch_start(DEFAULT_POLICY, flags=flags)
    vm.snp_launch_start(DEFAULT_POLICY)
    vm.set_memory_attributes(0, PAGE, private=True)
    with fails(errno.EINVAL, UPDATE):
        vm.snp_launch_update(0, guest.memory, 0, PAGE, flags=flags)
    with fails(errno.EINVAL, FINISH):
        vm.snp_launch_finish(flags=flags)


@pytest.mark.parametrize("arguments", [{"vmsa_features": 1}, {"ghcb_version": 1}, {"ghcb_version": 3}])
def test_init2_takes_no_features_and_no_other_version(arguments: dict[str, int]) -> None:
    with fails(errno.EINVAL, "KVM_SEV_INIT2"):
        SnpGuest().vm.sev_init2(**arguments)


def test_ioctls_out_of_order() -> None:
    guest = SnpGuest()
    vm = guest.vm
    with fails(errno.ENOTTY, START):
        vm.snp_launch_start(DEFAULT_POLICY)
    with fails(errno.EINVAL, UPDATE):
        vm.snp_launch_update(0, guest.memory, 0, PAGE)
    with fails(errno.ENOTTY, FINISH):
        vm.snp_launch_finish()
    vm.sev_init2()
    with fails(errno.EINVAL, "KVM_SEV_INIT2"):
        vm.sev_init2()
    for ioctl in (UPDATE, FINISH):
        with fails(errno.EINVAL, ioctl):
            vm.snp_launch_update(0, guest.memory, 0, PAGE) if ioctl == UPDATE else vm.snp_launch_finish()
    with fails(errno.EPERM, "KVM_SEV_LAUNCH_SECRET"):
        vm.refuse("KVM_SEV_LAUNCH_SECRET")


@pytest.mark.parametrize(
    ("gpa", "size", "kind", "number"),
    [
        (0, 0, 1, errno.EINVAL),
        (0, PAGE + 1, 1, errno.EINVAL),
        (0, PAGE, PageType.VMSA, errno.EINVAL),
        (0, PAGE, 7, errno.EINVAL),
        (MEMORY, PAGE, 1, errno.EINVAL),
        (PAGE, PAGE, 1, errno.EIO),
        (0, 2 * PAGE, 1, errno.EIO),
    ],
)
def test_pages_that_cannot_be_launched(gpa: int, size: int, kind: int, number: int) -> None:
    guest = SnpGuest()
    vm = guest.vm
    vm.sev_init2()
    vm.snp_launch_start(DEFAULT_POLICY)
    vm.set_memory_attributes(0, PAGE, private=True)
    with fails(number, UPDATE):
        vm.snp_launch_update(gpa, guest.memory, gpa % MEMORY, size, kind)


def test_page_is_launched_once() -> None:
    guest = SnpGuest()
    guest.launch()
    with fails(errno.EIO, UPDATE):
        guest.vm.snp_launch_update(HEAP, guest.memory, HEAP, PAGE)


def test_page_that_the_firmware_refuses_goes_back_to_the_host() -> None:
    guest = SnpGuest()
    guest.launch()
    with pytest.raises(KvmError) as told:
        guest.vm.snp_launch_update(FRESH, guest.memory, FRESH, PAGE)
    assert told.value.status is Status.INVALID_GUEST_STATE
    assert guest.platform.rmp.state(guest.spa(FRESH)) is PageState.GUEST_INVALID


@pytest.mark.parametrize(("gpa", "size"), [(0, 0), (1, PAGE), (0, 1), (1 << 50, 1 << 51)])
def test_attributes_of_no_pages(gpa: int, size: int) -> None:
    with fails(errno.EINVAL, "KVM_SET_MEMORY_ATTRIBUTES"):
        SnpGuest().vm.set_memory_attributes(gpa, size, private=True)


def test_attributes_of_all_of_the_address_space_are_those_of_the_slots() -> None:
    vm = SnpGuest().vm
    vm.set_memory_attributes(0, 1 << vm.part.physical_bits, private=True)
    assert vm.is_private(MEMORY - PAGE)
    assert not vm.is_private(MEMORY)


def test_kernel_of_the_host_can_write_to_no_page_of_a_guest() -> None:
    guest = SnpGuest()
    guest.launch()
    with pytest.raises(HostFaultError, match="#PF 0x80000003"):
        guest.platform.host.write(guest.spa(HEAP), b"old")
    guest.platform.host.write(guest.memory.spa(GHCB), b"new")
    assert guest.memory.read_raw(GHCB, 3) == b"new"


@pytest.mark.parametrize("hiding", [False, True])
def test_kernel_of_the_host_reads_ciphertext_unless_it_is_hidden(hiding: bool) -> None:
    guest = SnpGuest("turin", hiding=hiding)
    guest.launch()
    seen = guest.platform.host.read(guest.spa(HEAP), 16)
    assert (seen == b"\xff" * 16) is hiding
    assert seen not in (guest.private(HEAP, 16), bytes(16))


def test_registers_are_the_guests_after_the_launch() -> None:
    vcpu = SnpGuest().launch()
    with fails(errno.EINVAL, "KVM_GET_REGS"):
        vcpu.get_registers()


def test_nothing_of_a_guest_is_left_when_it_is_closed() -> None:
    guest = SnpGuest()
    guest.launch()
    guest.vm.close()
    assert [entry for entry in guest.platform.rmp._entries.values() if entry.assigned] == []
    for _ in range(guest.vm.part.min_asid + 2):
        vm = guest.platform.create_vm()
        vm.sev_init2()
        vm.snp_launch_start(DEFAULT_POLICY)
        vm.close()


def test_asid_of_a_guest_that_exported_itself_is_lost() -> None:
    """snp_decommission_context() fails, and sev_vm_destroy() leaves the ASID as it is."""
    stage = KvmStage(PARTS["milan"])
    guest = stage.guest()
    stage.export(guest.mailbox, guest.gctx, 0)
    guest.vm.close()
    for _ in range(stage.part.min_asid - 2):
        stage.platform.create_vm().sev_init2()
    with fails(errno.EBUSY, "KVM_SEV_INIT2"):
        stage.platform.create_vm().sev_init2()


def test_mirror_of_an_snp_guest_is_none() -> None:
    guest = SnpGuest()
    guest.launch()
    mirror = guest.platform.create_vm()
    mirror.copy_enc_context_from(guest.vm)
    mirror.set_user_memory_region(0, 0, MEMORY, guest.memory, 0)
    vcpu = mirror.create_vcpu()
    vcpu.set_registers(guest.registers())
    assert vcpu.run() == Exit(Reason.FAIL_ENTRY)
    with fails(errno.EINVAL, START):
        mirror.snp_launch_start(DEFAULT_POLICY)
    with fails(errno.EINVAL, "KVM_SEV_LAUNCH_SECRET"):
        mirror.refuse("KVM_SEV_LAUNCH_SECRET")
    with fails(errno.EINVAL, "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM"):
        guest.platform.create_vm().copy_enc_context_from(mirror)
    mirror.close()
