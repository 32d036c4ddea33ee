"""What a guest asks its host through KVM: hypercalls and filtered MSRs, and what KVM answers itself.

Sources: Linux v6.15, arch/x86/kvm/x86.c unless a test names another file.
"""

from __future__ import annotations

import errno

import pytest

from emulator_tests.machine.guests import HEAP, PAGE, TEXT, USER_TEXT, Guest, assemble, caught, gprs, run_to_halt
from mh_emulator.kvm import KvmError, Vcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.hypercalls import EINVAL, ENOSYS, EPERM, MAP_GPA_RANGE, MAP_GPA_RANGE_ENCRYPTED
from mh_emulator.kvm.msrs import EXIT_FILTER, EXIT_UNKNOWN

MIGRATION_CONTROL = 0x4B56_4D08
_ALL = (1 << 64) - 1


def negative(number: int) -> int:
    return -number & _ALL


def asking(gpa: int = HEAP, pages: int = 1, attributes: int = 0, number: int = MAP_GPA_RANGE) -> Vcpu:
    """A guest about to make that hypercall, on a host that wants it."""
    guest = Guest()
    guest.vm.enable_exit_hypercall(1 << MAP_GPA_RANGE)
    return guest.launch("vmmcall\n hlt", rax=number, rbx=gpa, rcx=pages, rdx=attributes)


@pytest.mark.parametrize(("text", "length"), [("vmmcall", 3), (".byte 0xf3, 0x0f, 0x01, 0xd9", 4)])
def test_map_gpa_range_leaves_for_the_host(text: str, length: int) -> None:
    """kvm_emulate_hypercall() leaves with the arguments; complete_hypercall_exit() then sets RAX and moves RIP."""
    guest = Guest()
    guest.vm.enable_exit_hypercall(1 << MAP_GPA_RANGE)
    vcpu = guest.launch(f"{text}\n mov rsi, rax\n hlt", rax=MAP_GPA_RANGE, rbx=HEAP, rcx=2, rdx=MAP_GPA_RANGE_ENCRYPTED)
    arguments = (HEAP, 2, MAP_GPA_RANGE_ENCRYPTED)
    assert vcpu.run() == Exit(Reason.HYPERCALL, number=MAP_GPA_RANGE, arguments=arguments)
    assert vcpu.get_registers().rip == TEXT
    vcpu.answer(negative(EINVAL))
    state = run_to_halt(vcpu)
    assert (state.rip, state.rsi) == (TEXT + length + 3 + 1, negative(EINVAL))


def test_without_an_answer_the_guest_gets_zero() -> None:
    """KVM sets run->hypercall.ret to 0 before it leaves, because QEMU does not write it."""
    vcpu = asking()
    assert vcpu.run().reason is Reason.HYPERCALL
    assert run_to_halt(vcpu).rax == 0


def test_an_answer_is_for_one_exit() -> None:
    guest = Guest()
    guest.vm.enable_exit_hypercall(1 << MAP_GPA_RANGE)
    text = f"vmmcall\n mov rsi, rax\n mov eax, {MAP_GPA_RANGE}\n vmmcall\n hlt"
    vcpu = guest.launch(text, rax=MAP_GPA_RANGE, rbx=HEAP, rcx=1)
    assert vcpu.run().reason is Reason.HYPERCALL
    vcpu.answer(7)
    assert vcpu.run().reason is Reason.HYPERCALL
    assert gprs(run_to_halt(vcpu), "rsi rax") == {"rsi": 7, "rax": 0}


@pytest.mark.parametrize(
    ("gpa", "pages"),
    [(HEAP + 1, 1), (HEAP + 8, 1), (HEAP, 0), (HEAP, _ALL), (_ALL - PAGE + 1, (1 << 64) - ((1 << 52) - 1))],
)
def test_ranges_that_kvm_refuses_itself(gpa: int, pages: int) -> None:
    """-KVM_EINVAL for an address that is not aligned, no pages, and a sum that wraps."""
    assert run_to_halt(asking(gpa, pages)).rax == negative(EINVAL)


def test_a_range_that_just_does_not_wrap_leaves() -> None:
    """The limit is that of page numbers in 64 bits: what is too far for the guest is the host's to refuse."""
    assert asking(PAGE, _ALL - 1).run().reason is Reason.HYPERCALL


@pytest.mark.parametrize("number", [0, 5, 11, 13, 1 << 32 | 12])
def test_other_hypercalls_are_not_there(number: int) -> None:
    assert run_to_halt(asking(number=number)).rax == negative(ENOSYS)


def test_map_gpa_range_is_not_there_unless_the_host_enables_it() -> None:
    """Documentation/virt/kvm/x86/hypercalls.rst: KVM_ENOSYS without KVM_CAP_EXIT_HYPERCALL."""
    vcpu = Guest().launch("vmmcall\n hlt", rax=MAP_GPA_RANGE, rbx=HEAP, rcx=1)
    assert run_to_halt(vcpu).rax == negative(ENOSYS)


def test_user_mode_may_not_call() -> None:
    """-KVM_EPERM above CPL 0, before the number is looked at."""
    guest = Guest()
    guest.vm.enable_exit_hypercall(1 << MAP_GPA_RANGE)
    guest.contents[USER_TEXT] = assemble("vmmcall\n hlt")
    fault = caught(guest.launch(rip=USER_TEXT, cs=0x23, ss=0x1B, rax=MAP_GPA_RANGE, rbx=HEAP, rcx=1))
    assert (fault.vector, fault.rip, fault.handler.rax) == (13, USER_TEXT + 3, negative(EPERM))


@pytest.mark.parametrize("mask", [1, 1 << 11, 1 << 12 | 1 << 13])
def test_no_other_hypercall_can_be_enabled(mask: int) -> None:
    """kvm_vm_ioctl_enable_cap(): EINVAL outside of KVM_EXIT_HYPERCALL_VALID_MASK."""
    with pytest.raises(KvmError, match="^KVM_CAP_EXIT_HYPERCALL: EINVAL$") as refused:
        Guest().vm.enable_exit_hypercall(mask)
    assert refused.value.errno == errno.EINVAL


# ---- MSRs ----


def filtering() -> Guest:
    guest = Guest()
    guest.vm.enable_user_space_msr(EXIT_FILTER)
    guest.vm.set_msr_filter(frozenset({MIGRATION_CONTROL}))
    return guest


def test_migration_control_is_the_hosts_msr() -> None:
    """KVM has no code for it: a filter brings it to the host (the commit that reserved it says so), which answers."""
    text = "rdmsr\n mov ebx, eax\n mov esi, edx\n mov eax, 1\n xor edx, edx\n wrmsr\n mov edi, 1\n hlt"
    vcpu = filtering().launch(text, rcx=0xBEEF << 32 | MIGRATION_CONTROL)
    assert vcpu.run() == Exit(Reason.MSR, msr=MIGRATION_CONTROL)
    assert vcpu.get_registers().rip == TEXT
    vcpu.answer(5 << 32 | 7)
    assert vcpu.run() == Exit(Reason.MSR, msr=MIGRATION_CONTROL, value=1, is_write=True)
    assert gprs(run_to_halt(vcpu), "rbx rsi rdi") == {"rbx": 7, "rsi": 5, "rdi": 1}


@pytest.mark.parametrize("text", ["rdmsr", "wrmsr"])
def test_a_host_that_says_error_makes_it_gp(text: str) -> None:
    """complete_emulated_msr() injects #GP for run->msr.error."""
    vcpu = filtering().launch(f"nop\n {text}", rcx=MIGRATION_CONTROL)
    assert vcpu.run().reason is Reason.MSR
    vcpu.answer(error=True)
    fault = caught(vcpu)
    assert (fault.vector, fault.error_code, fault.rip) == (13, 0, TEXT + 1)


@pytest.mark.parametrize("text", ["rdmsr", "wrmsr"])
@pytest.mark.parametrize("reasons", [0, EXIT_FILTER])
def test_what_the_host_did_not_ask_for_is_gp(text: str, reasons: int) -> None:
    guest = Guest()
    guest.vm.enable_user_space_msr(reasons)
    fault = caught(guest.launch(text, rcx=MIGRATION_CONTROL))
    assert (fault.vector, fault.error_code, fault.rip) == (13, 0, TEXT)


def test_a_denied_msr_is_gp_where_only_unknown_ones_leave() -> None:
    """kvm_emulate_rdmsr(): KVM_MSR_RET_FILTERED is the reason FILTER, not UNKNOWN."""
    guest = Guest()
    guest.vm.enable_user_space_msr(EXIT_UNKNOWN)
    guest.vm.set_msr_filter(frozenset({MIGRATION_CONTROL}))
    assert caught(guest.launch("rdmsr", rcx=MIGRATION_CONTROL)).vector == 13
    other = Guest()
    other.vm.enable_user_space_msr(EXIT_UNKNOWN)
    assert other.launch("rdmsr", rcx=0x1234).run() == Exit(Reason.MSR, msr=0x1234)


def test_reasons_that_do_not_exist() -> None:
    """kvm_vm_ioctl_enable_cap(): EINVAL outside of KVM_MSR_EXIT_REASON_VALID_MASK."""
    with pytest.raises(KvmError, match="^KVM_CAP_X86_USER_SPACE_MSR: EINVAL$"):
        Guest().vm.enable_user_space_msr(1 << 3)


def test_msrs_that_the_guest_reaches_directly_never_leave() -> None:
    """arch/x86/kvm/svm/svm.c, svm_recalc_msr_intercepts(): FS.base and the like are not intercepted."""
    guest = Guest()
    guest.vm.enable_user_space_msr(EXIT_UNKNOWN | EXIT_FILTER)
    assert run_to_halt(guest.launch("rdmsr\n hlt", rcx=0xC000_0080)).rax & 1


@pytest.mark.parametrize("features", [0, 1 << 16 | 1 << 17])
def test_the_cpuid_bits_are_the_hosts(features: int) -> None:
    """KVM_GET_SUPPORTED_CPUID has neither bit 16 nor bit 17 of leaf 4000_0001; KVM_SET_CPUID2 takes them."""
    guest = Guest()
    guest.vm.kvm_features = features
    assert run_to_halt(guest.launch("cpuid\n hlt", rax=0x4000_0001)).rax == features


def test_input_is_what_the_host_answers() -> None:
    """kvm_fast_pio_in() and complete_fast_pio_in(): the value in AL, AX or EAX, the rest as the instruction has it."""
    text = "in al, 0x60\n mov rbx, rax\n in ax, dx\n mov rsi, rax\n in eax, dx\n hlt"
    vcpu = Guest().launch(text, rax=0x1111_2222_3333_4444, rdx=0x402)
    for answer in (0xFFAA, 0xFFFF_BBBB, 0xCCCC_CCCC):
        assert vcpu.run().reason is Reason.IO
        vcpu.answer(answer)
    state = run_to_halt(vcpu)
    expected = {"rbx": 0x1111_2222_3333_44AA, "rsi": 0x1111_2222_3333_BBBB, "rax": 0xCCCC_CCCC}
    assert gprs(state, "rbx rsi rax") == expected
