"""VMSAs: when KVM makes them, what they are worth afterwards, and that nobody but the CPU changes them.

Sources: Linux v6.15, arch/x86/kvm/svm/sev.c unless a test names another file.
"""

from __future__ import annotations

import errno

import pytest

from emulator_tests.machine.guests import HEAP, MEMORY, PAGE, TEXT, Guest, fails, machine
from mh_builder.save_area import OFFSETS
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import X87, Registers
from mh_emulator.kvm import EsVcpu, KvmError, Vm, VmType
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.owner import Expected, GuestOwner, OwnerRefuses
from mh_emulator.platform import Platform
from mh_emulator.psp.policy import Policy

UPDATE_VMSA = "KVM_SEV_LAUNCH_UPDATE_VMSA"
COUNTING = "again: inc rax\n jmp again"


def vcpu_of(vm: Vm, state: Registers) -> EsVcpu:
    vcpu = vm.create_vcpu()
    assert isinstance(vcpu, EsVcpu)
    vcpu.set_registers(state)
    return vcpu


def starting(platform: Platform) -> Vm:
    """An SEV-ES guest after LAUNCH_START."""
    vm = platform.create_vm(VmType.SEV_ES)
    vm.sev_init2()
    vm.sev_launch_start(Policy.ES)
    return vm


STATE = Registers.long_mode(0x1234_5678_9ABC, 0x2000, 0x3000).with_changes(xmm=tuple(range(100, 116)), rbx=0xB0B)


@pytest.mark.parametrize("es", [False, True])
def test_only_for_es_guests(es: bool) -> None:
    """sev_launch_update_vmsa(): ENOTTY unless sev_es_guest(), also without any SEV."""
    vm = machine().create_vm()
    with fails(errno.ENOTTY, UPDATE_VMSA):
        vm.sev_launch_update_vmsa()
    if es:
        vm.sev_es_init()
        vm.sev_launch_start(Policy.ES)
        vm.sev_launch_update_vmsa()
        return
    vm.sev_init()
    with fails(errno.ENOTTY, UPDATE_VMSA):
        vm.sev_launch_update_vmsa()


def test_registers_are_the_hosts_until_then() -> None:
    """kvm_arch_vcpu_ioctl_get_regs() in arch/x86/kvm/x86.c: EINVAL for a vCPU whose state is protected."""
    vm = starting(machine())
    vcpu = vcpu_of(vm, STATE)
    assert vcpu.get_registers() == STATE
    vm.sev_launch_update_vmsa()
    with fails(errno.EINVAL, "KVM_GET_REGS"):
        vcpu.get_registers()
    with fails(errno.EINVAL, "KVM_SET_REGS"):
        vcpu.set_registers(STATE)


def test_an_older_kind_of_vm_shows_what_the_host_set() -> None:
    """The same function: no EINVAL without has_protected_state, but what KVM has is not what the guest has."""
    guest = Guest()
    guest.vm.sev_es_init()
    guest.contents[TEXT] = b"\xf4\xf4"
    guest.memory.write_raw(TEXT, b"\xf4\xf4")
    for address, entry in guest.tables.entries.items():
        guest.memory.write_raw(address, entry.to_bytes(8, "little"))
    state = guest.registers()
    vcpu = vcpu_of(guest.vm, state)
    guest.vm.sev_launch_start(Policy.ES)
    guest.vm.sev_launch_update_data(guest.memory, 0, MEMORY)
    guest.vm.sev_launch_update_vmsa()
    guest.vm.sev_launch_measure()
    guest.vm.sev_launch_finish()
    assert vcpu.run() == Exit(Reason.HLT)
    assert vcpu.get_registers() == state
    other = state.with_changes(rip=0, rax=1)
    vcpu.set_registers(other)
    assert vcpu.get_registers() == other
    assert vcpu.run() == Exit(Reason.HLT)
    assert guest.inside(vcpu).rip == TEXT + 2


@pytest.mark.parametrize("vm_type", [VmType.DEFAULT, VmType.SEV_ES])
def test_floating_point_state_is_measured_in_the_newer_kind(vm_type: VmType) -> None:
    """sev_es_sync_vmsa(): KVM_SEV_ES_INIT leaves x87 and SSE out, so that older measurements hold."""
    platform = machine()
    vm = platform.create_vm(vm_type)
    if vm_type is VmType.SEV_ES:
        vm.sev_init2()
    else:
        vm.sev_es_init()
    vm.sev_launch_start(Policy.ES)
    vcpu = vcpu_of(vm, STATE)
    vm.sev_launch_update_vmsa()
    page = platform.dram.read_private(vm.asid, vcpu.vmsa.spa(0), PAGE)
    is_new = vm_type is VmType.SEV_ES
    expected = STATE if is_new else STATE.with_changes(mxcsr=0, xmm=(0,) * 16, x87=X87(control=0))
    loaded = vmsa.load(page)
    assert loaded.with_changes(tr=STATE.tr, ldtr=STATE.ldtr) == expected.with_changes(cr4=STATE.cr4 | 1 << 6)
    assert page[OFFSETS["fcw"]] == (0x7F if is_new else 0)


def test_only_once() -> None:
    """__sev_launch_update_vmsa(): EINVAL for a vCPU that is protected already (fix of April 2026)."""
    vm = starting(machine())
    vcpu_of(vm, STATE)
    vm.sev_launch_update_vmsa()
    with fails(errno.EINVAL, UPDATE_VMSA):
        vm.sev_launch_update_vmsa()


def test_a_mirrors_vcpus_are_launched_with_their_owner() -> None:
    """sev_mem_enc_ioctl() lets a mirror do it, with the owner's handle: so before the owner's LAUNCH_MEASURE."""
    owner = starting(machine_platform := machine())
    early, late = (machine_platform.create_vm(VmType.SEV_ES) for _ in range(2))
    for mirror in (early, late):
        mirror.copy_enc_context_from(owner)
        assert mirror.es
        vcpu_of(mirror, STATE)
    early.sev_launch_update_vmsa()
    owner.sev_launch_measure()
    with pytest.raises(KvmError, match=r"^KVM_SEV_LAUNCH_UPDATE_VMSA: EIO \(firmware: INVALID_GUEST_STATE\)$"):
        late.sev_launch_update_vmsa()


def test_all_vmsas_are_in_the_measurement_of_the_owner() -> None:
    """The firmware's digest goes on over every LAUNCH_UPDATE, whoever asks for it."""
    for told in (True, False):
        guest_owner = GuestOwner(Policy.ES)
        platform = machine()
        vm, mirror = platform.create_vm(VmType.SEV_ES), platform.create_vm(VmType.SEV_ES)
        vm.sev_init2()
        vm.sev_launch_start(guest_owner.policy, guest_owner.open_session(platform.credentials()))
        mirror.copy_enc_context_from(vm)
        vcpu_of(vm, STATE)
        vcpu_of(mirror, STATE.with_changes(rip=0x5000))
        mirror.sev_launch_update_vmsa()
        vm.sev_launch_update_vmsa()
        states = (STATE.with_changes(rip=0x5000 if told else 0x6000), STATE)
        expected = Expected(vmsa.make(state, fpu=True) for state in states)
        if told:
            guest_owner.check_measurement(vm.sev_launch_measure(), expected)
            continue
        with pytest.raises(OwnerRefuses):
            guest_owner.check_measurement(vm.sev_launch_measure(), expected)


def test_a_vcpu_that_came_later_never_runs() -> None:
    """VMRUN has no checksum for its page: KVM_EXIT_FAIL_ENTRY."""
    guest = Guest(es=True)
    guest.launch()
    assert vcpu_of(guest.vm, guest.registers()).run() == Exit(Reason.FAIL_ENTRY)


def test_the_page_is_ciphertext_in_no_slot() -> None:
    guest = Guest(es=True)
    vcpu = guest.launch(COUNTING)
    assert vcpu.run(1000) == Exit(Reason.LIMIT)
    assert isinstance(vcpu, EsVcpu)
    page = vcpu.vmsa.spa(0)
    assert all(guest.vm.spa(gpa) != page for gpa in range(0, MEMORY, PAGE))
    raw = vcpu.vmsa.read_raw(0, PAGE)
    assert TEXT.to_bytes(8, "little") not in raw
    assert guest.inside(vcpu).rip & ~0xF == TEXT


@pytest.mark.parametrize("counts", [(1,), (7, 1, 1, 13), (100, 0, 55)])
def test_a_vcpu_goes_on_from_its_page(counts: tuple[int, ...]) -> None:
    guest = Guest(es=True)
    vcpu = guest.launch(COUNTING)
    for count in counts:
        assert vcpu.run(count) == Exit(Reason.LIMIT)
    assert guest.inside(vcpu).rax == (sum(counts) + 1) // 2


def test_a_host_cannot_change_registers_in_the_page() -> None:
    """One block of other ciphertext, and VMRUN fails."""
    guest = Guest(es=True)
    vcpu = guest.launch(COUNTING)
    vcpu.run(10)
    assert isinstance(vcpu, EsVcpu)
    before = vcpu.vmsa.read_raw(0, PAGE)
    vcpu.vmsa.write_raw(OFFSETS["rip"] & ~15, bytes(16))
    assert vcpu.run(10) == Exit(Reason.FAIL_ENTRY)
    vcpu.vmsa.write_raw(0, before)
    assert vcpu.run(10) == Exit(Reason.LIMIT)


def test_a_host_cannot_bring_an_old_page_back() -> None:
    """The checksum is that of the last exit: registers have the integrity that memory lacks."""
    guest = Guest(es=True)
    vcpu = guest.launch(COUNTING)
    vcpu.run(10)
    assert isinstance(vcpu, EsVcpu)
    old = vcpu.vmsa.read_raw(0, PAGE)
    vcpu.run(10)
    vcpu.vmsa.write_raw(0, old)
    assert vcpu.run(10) == Exit(Reason.FAIL_ENTRY)


def test_not_even_the_holder_of_the_key_can() -> None:
    """A mirror that maps the page writes under the right key; the checksum it cannot write. So a state that migrates
    has to be loaded by code in the guest."""
    guest = Guest(es=True)
    vcpu = guest.launch(COUNTING)
    vcpu.run(10)
    assert isinstance(vcpu, EsVcpu)
    changed = vmsa.store(
        guest.platform.dram.read_private(guest.vm.asid, vcpu.vmsa.spa(0), PAGE),
        guest.inside(vcpu).with_changes(rax=0),
    )
    guest.platform.dram.write_private(guest.vm.asid, vcpu.vmsa.spa(0), changed)
    assert vcpu.run(10) == Exit(Reason.FAIL_ENTRY)


def test_every_register_survives_the_page() -> None:
    state = STATE.with_changes(
        **{f"r{number}": number << 40 for number in range(8, 16)},
        cr2=1 << 40, fs_base=0x1111, gs_base=0x2222, kernel_gs_base=0x3333, star=0x1B0008 << 32, lstar=0x4444,
        sfmask=0x47700, mxcsr=0x1FA0, rflags=0x40AD7, cs=0x33, ss=0x2B, ds=0x1B, es=0x10, fs=0x1B, gs=0x23,
        gdtr=STATE.gdtr._replace(base=0x7000, limit=0x3F), idtr=STATE.idtr._replace(base=HEAP, limit=0xFFF),
        tr=STATE.tr._replace(selector=0x28, base=0x9000, limit=0x67, attributes=0x8B00),
        ldtr=STATE.ldtr._replace(selector=0x30, base=0xA000, limit=0xFFFF, attributes=0x8200),
        x87=X87(0x027F, 0x3800, 0x85, tuple(number << 72 | number for number in range(1, 9))),
    )  # fmt: skip
    assert vmsa.load(vmsa.store(bytes(PAGE), state)) == state
