"""Which VMs become SEV guests, and which ASIDs they get.

Sources: Linux v6.15, arch/x86/kvm/svm/sev.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from emulator_tests.machine.guests import PAGE, fails, machine
from mh_builder.parts import PARTS
from mh_emulator.kvm import Vm, VmType
from mh_emulator.platform import Platform

INITS: dict[str, tuple[VmType, Callable[[Vm], None]]] = {
    "KVM_SEV_INIT": (VmType.DEFAULT, lambda vm: vm.sev_init()),
    "KVM_SEV_ES_INIT": (VmType.DEFAULT, lambda vm: vm.sev_es_init()),
    "KVM_SEV_INIT2": (VmType.SEV, lambda vm: vm.sev_init2()),
    "KVM_SEV_INIT2 for ES": (VmType.SEV_ES, lambda vm: vm.sev_init2()),
}
each_init = pytest.mark.parametrize("how", INITS)


def ioctl_of(how: str) -> str:
    return how.split(maxsplit=1)[0]


@each_init
def test_once_and_before_vcpus(how: str) -> None:
    """__sev_guest_init(): EINVAL with created_vcpus, EINVAL where sev->active."""
    vm_type, init = INITS[how]
    platform = machine()
    vm, late = platform.create_vm(vm_type), platform.create_vm(vm_type)
    init(vm)
    late.create_vcpu()
    for one in (vm, late):
        with fails(errno.EINVAL, ioctl_of(how)):
            init(one)


@each_init
def test_not_on_a_mirror(how: str) -> None:
    """sev_mem_enc_ioctl(): no INIT in is_cmd_allowed_from_mirror()."""
    vm_type, init = INITS[how]
    platform = machine()
    owner, mirror = platform.create_vm(), platform.create_vm(vm_type)
    owner.sev_init()
    mirror.copy_enc_context_from(owner)
    with fails(errno.EINVAL, ioctl_of(how)):
        init(mirror)


@each_init
@pytest.mark.parametrize("vm_type", VmType)
def test_the_type_of_the_vm_decides_which_one_it_takes(how: str, vm_type: VmType) -> None:
    """sev_guest_init() wants KVM_X86_DEFAULT_VM, sev_guest_init2() a VM that was created for SEV."""
    right, init = INITS[how]
    vm = machine().create_vm(vm_type)
    if (vm_type is VmType.DEFAULT) is (right is VmType.DEFAULT):
        init(vm)
        assert vm.es is (vm_type is VmType.SEV_ES or how == "KVM_SEV_ES_INIT")
        return
    with fails(errno.EINVAL, ioctl_of(how)):
        init(vm)


@pytest.mark.parametrize(
    ("vm_type", "arguments"),
    [
        (VmType.SEV, {"flags": 1}),
        (VmType.SEV_ES, {"flags": 1}),
        (VmType.SEV, {"vmsa_features": 1 << 5}),
        (VmType.SEV_ES, {"vmsa_features": 1 << 5}),
        (VmType.SEV, {"ghcb_version": 1}),
        (VmType.SEV_ES, {"ghcb_version": 3}),
    ],
)
def test_what_init2_refuses(vm_type: VmType, arguments: dict[str, int]) -> None:
    """__sev_guest_init(): EINVAL for flags, VMSA features that KVM has not, a GHCB version without ES or above 2."""
    vm = machine().create_vm(vm_type)
    with fails(errno.EINVAL, "KVM_SEV_INIT2"):
        vm.sev_init2(**arguments)
    vm.sev_init2(ghcb_version=2 if vm_type is VmType.SEV_ES else 0)


@pytest.mark.parametrize("part", PARTS)
def test_es_guests_have_the_low_asids(part: str) -> None:
    """sev_asid_new(): 1 to min_sev_asid - 1 for SEV-ES, the others for SEV; the lowest that is free."""
    platform = machine(part)
    plain, first, second = (platform.create_vm() for _ in range(3))
    plain.sev_init()
    first.sev_es_init()
    second.sev_es_init()
    assert (plain.asid, first.asid, second.asid) == (PARTS[part].min_asid, 1, 2)


def test_each_kind_runs_out_alone() -> None:
    platform = machine("naples")
    for _ in range(4):
        platform.create_vm().sev_es_init()
    with fails(errno.EBUSY, "KVM_SEV_ES_INIT"):
        platform.create_vm().sev_es_init()
    platform.create_vm().sev_init()


@pytest.mark.parametrize(("min_asid", "how"), [(1, "KVM_SEV_ES_INIT"), (16, "KVM_SEV_INIT")])
def test_a_platform_that_gives_all_asids_to_one_kind(min_asid: int, how: str) -> None:
    """sev_asid_new(): ENOTTY where the range is empty; the split is a setting of the platform's firmware."""
    platform = Platform(replace(PARTS["naples"], min_asid=min_asid), 16 << 20, 1)
    with fails(errno.ENOTTY, how):
        INITS[how][1](platform.create_vm())


# ---- regions ----

REGISTER, UNREGISTER = "KVM_MEMORY_ENCRYPT_REG_REGION", "KVM_MEMORY_ENCRYPT_UNREG_REGION"


def test_regions_of_a_guest() -> None:
    """sev_mem_enc_register_region(), sev_mem_enc_unregister_region(): only what was registered, and once."""
    platform = machine()
    vm, memory = platform.create_vm(), platform.memory(4 * PAGE)
    vm.sev_init()
    for offset, size, number in ((0, 0, errno.EINVAL), (0, 5 * PAGE, errno.ENOMEM)):
        with fails(number, REGISTER):
            vm.memory_encrypt_reg_region(memory, offset, size)
    vm.memory_encrypt_reg_region(memory, 0, 4 * PAGE)
    with fails(errno.EINVAL, UNREGISTER):
        vm.memory_encrypt_unreg_region(memory, 0, PAGE)
    vm.memory_encrypt_unreg_region(memory, 0, 4 * PAGE)
    with fails(errno.EINVAL, UNREGISTER):
        vm.memory_encrypt_unreg_region(memory, 0, 4 * PAGE)


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EINVAL])
def test_regions_without_sev_and_on_a_mirror(number: int) -> None:
    """ENOTTY without SEV, EINVAL on a mirror: its owner pins the memory."""
    platform = machine()
    owner, vm, memory = platform.create_vm(), platform.create_vm(), platform.memory(PAGE)
    if number == errno.EINVAL:
        owner.sev_init()
        vm.copy_enc_context_from(owner)
    with fails(number, REGISTER):
        vm.memory_encrypt_reg_region(memory, 0, PAGE)
    with fails(number, UNREGISTER):
        vm.memory_encrypt_unreg_region(memory, 0, PAGE)
