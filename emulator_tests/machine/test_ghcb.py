"""#VC, and what an SEV-ES guest gets through its GHCB.

Sources: AMD64 APM volume 2, section 15.35.5; GHCB specification (AMD 56421); Linux v6.15, arch/x86/kvm/svm/sev.c.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from emulator_tests.machine.guests import DATA, HANDLERS, HEAP, PAGE, SHARED, TEXT, Guest
from mh_builder.parts import PARTS
from mh_emulator.cpu.registers import Registers
from mh_emulator.kvm import KvmError, Vcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.hypercalls import MAP_GPA_RANGE
from mh_emulator.kvm.msrs import EXIT_UNKNOWN

GHCB_MSR, SEV_STATUS = 0xC001_0130, 0xC001_0131
GHCB = HEAP + PAGE
VC = 29

MMIO = 0xA000_0000
"""A guest-physical address without a slot."""

# Offsets in the page: GHCB specification, table 3.
FIELDS = {
    "cpl": 0xCB, "rax": 0x1F8, "rcx": 0x308, "rdx": 0x310, "rbx": 0x318, "rsi": 0x330, "code": 0x390, "info1": 0x398,
    "info2": 0x3A0, "scratch": 0x3A8, "xcr0": 0x3E8,
}  # fmt: skip
BITMAP, USAGE, BUFFER = 0x3F0, 0xFFC, 0x800

VMGEXIT = ".byte 0xf3, 0x0f, 0x01, 0xd9"
ASK = f"mov ecx, {GHCB_MSR}\n mov eax, {GHCB}\n xor edx, edx\n wrmsr\n again: {VMGEXIT}\n hlt\n jmp again"


def es_guest() -> Guest:
    return Guest(es=True)


class Vc(NamedTuple):
    """What the handler of #VC finds."""

    code: int
    rip: int


def reflected(text: str, **registers: object) -> Vc:
    """Run to the handler of #VC."""
    guest = es_guest()
    guest.tables.map(MMIO, MMIO, DATA, private=False)
    vcpu = guest.launch(text, **registers)
    assert vcpu.run() == Exit(Reason.HLT)
    state = guest.inside(vcpu)
    assert state.rip - 1 == HANDLERS + VC
    frame = vcpu.read_linear(state.rsp, 16)
    return Vc(int.from_bytes(frame[:8], "little"), int.from_bytes(frame[8:], "little"))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("cpuid", 0x72),
        ("vmmcall", 0x81),
        ("in al, 0x60", 0x7B),
        ("out dx, eax", 0x7B),
        ("rep insb", 0x7B),
        ("outsd", 0x7B),
        ("rep outsw", 0x7B),
        (".byte 0x67, 0x66, 0xf3, 0x6d", 0x7B),
        ("rdmsr", 0x7C),
        ("wrmsr", 0x7C),
        ("mov rax, [rdi + 8]", 0x400),
        ("mov [rdi + 8], ebx", 0x400),
    ],
)
def test_what_would_tell_the_host_something_is_vc(text: str, code: int) -> None:
    """Non-automatic exits: #VC with the exit code, RIP at the instruction; also a page that KVM takes for MMIO."""
    assert reflected(f"nop\n {text}\n hlt", rcx=0x4B564D08, rdi=MMIO) == Vc(code, TEXT + 1)


def test_code_behind_cpuid_has_not_run() -> None:
    guest = es_guest()
    vcpu = guest.launch("cpuid\n inc rbx\n hlt", rbx=7)
    vcpu.run()
    assert guest.inside(vcpu).rbx == 7


def test_halt_is_no_vc() -> None:
    """An automatic exit: the state goes into the VMSA with RIP behind the instruction."""
    guest = es_guest()
    vcpu = guest.launch("hlt\n mov eax, 5\n hlt")
    assert vcpu.run() == Exit(Reason.HLT)
    assert guest.inside(vcpu).rip == TEXT + 1
    assert vcpu.run() == Exit(Reason.HLT)
    assert guest.inside(vcpu).rax == 5


def test_msrs_that_need_nobody() -> None:
    """SEV_STATUS cannot be intercepted, and KVM lets the GHCB's MSR, EFER and the segment bases through."""
    guest = es_guest()
    vcpu = guest.launch(
        f"mov ecx, {SEV_STATUS}\n rdmsr\n mov ebx, eax\n mov ecx, {GHCB_MSR}\n rdmsr\n mov rsi, rdx\n mov edi, eax\n"
        "mov ecx, 0xc0000080\n rdmsr\n hlt"
    )
    assert vcpu.run() == Exit(Reason.HLT)
    state = guest.inside(vcpu)
    assert state.rbx == 0b11
    # At reset: GHCB versions 1 to 2, the C-bit, SEV_INFO.
    assert (state.rsi, state.rdi) == (2 << 16 | 1, 51 << 24 | 1)
    assert state.rax & 1 << 10


def test_without_es_there_is_no_ghcb() -> None:
    guest = Guest()
    vcpu = guest.launch(f"mov ecx, {SEV_STATUS}\n rdmsr\n mov ebx, eax\n mov ecx, {GHCB_MSR}\n rdmsr\n hlt")
    vcpu.run()
    state = vcpu.get_registers()
    assert (state.rip - 1, state.rbx) == (HANDLERS + 13, 1)


# ---- the MSR protocol ----


def by_msr(value: int) -> tuple[Exit, Registers]:
    """Ask in the MSR itself; RAX and RDX are what it holds afterwards."""
    guest = es_guest()
    text = f"wrmsr\n {VMGEXIT}\n rdmsr\n hlt"
    vcpu = guest.launch(text, rcx=GHCB_MSR, rax=value & 0xFFFF_FFFF, rdx=value >> 32)
    return vcpu.run(), guest.inside(vcpu)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (0x002, 2 << 48 | 1 << 32 | 51 << 24 | 0x001),
        (0x080, 0b11 << 12 | 0x081),
        (0x8000_001F << 32 | 1 << 30 | 0x004, 0x173 << 32 | 1 << 30 | 0x005),
        (0x8000_001F << 32 | 2 << 30 | 0x004, 509 << 32 | 2 << 30 | 0x005),
        (0x7FF, 0x7FF),
    ],
)
def test_answers_in_the_msr(asked: int, answered: int) -> None:
    """sev_handle_vmgexit_msr_protocol(); an unknown request leaves the MSR as it is."""
    exit_, state = by_msr(asked)
    assert exit_ == Exit(Reason.HLT)
    assert state.rdx << 32 | state.rax == answered


def test_a_guest_can_ask_for_its_end() -> None:
    """KVM_SYSTEM_EVENT_SEV_TERM with the MSR: reason set 1, reason 2."""
    assert by_msr(2 << 16 | 1 << 12 | 0x100)[0] == Exit(Reason.SYSTEM_EVENT, value=2 << 16 | 1 << 12 | 0x100)


def test_a_parked_vcpu_leaves() -> None:
    assert by_msr(0x006)[0] == Exit(Reason.AP_RESET_HOLD)


@pytest.mark.parametrize("gpa", [0, MMIO])
def test_without_a_page_kvm_goes_right_back(gpa: int) -> None:
    """sev_handle_vmgexit(): no address, or one without a slot."""
    exit_, state = by_msr(gpa)
    assert (exit_, state.rax) == (Exit(Reason.HLT), gpa)


# ---- the page ----


class Asked:
    """A guest that has put a request into its page and is about to leave."""

    def __init__(self, fields: Mapping[str, int], buffer: bytes = b"", usage: int = 0) -> None:
        self.guest = es_guest()
        self.vcpu: Vcpu = self.guest.launch(ASK)
        self.put(fields, buffer, usage)

    def put(self, fields: Mapping[str, int], buffer: bytes = b"", usage: int = 0) -> None:
        page = bytearray(PAGE)
        for name, value in fields.items():
            start, size = FIELDS[name], 1 if name == "cpl" else 8
            page[start : start + size] = value.to_bytes(size, "little")
            page[BITMAP + start // 64] |= 1 << start // 8 % 8
        page[BUFFER : BUFFER + len(buffer)] = buffer
        page[USAGE:] = usage.to_bytes(4, "little")
        self.guest.memory.write_raw(GHCB, bytes(page))

    def word(self, name: str) -> int:
        """A field of the answer; it has to be marked as valid."""
        start = FIELDS[name]
        page = self.guest.memory.read_raw(GHCB, PAGE)
        assert page[BITMAP + start // 64] >> start // 8 % 8 & 1, name
        return int.from_bytes(page[start : start + 8], "little")

    def answer(self) -> tuple[int, int]:
        """The two words of the answer, when the guest has gone on to its halt."""
        assert self.vcpu.run() == Exit(Reason.HLT)
        return self.word("info1"), self.word("info2")


def request(code: int, info1: int = 0, info2: int = 0, **more: int) -> dict[str, int]:
    return {"code": code, "info1": info1, "info2": info2, **more}


def test_cpuid() -> None:
    asked = Asked(request(0x72, rax=0x8000_001F, rcx=0))
    assert asked.answer() == (0, 0)
    assert [asked.word(name) for name in ("rbx", "rcx", "rdx")] == [0x173, 509, PARTS["milan"].min_asid]


def test_msr_access_leaves_for_the_host() -> None:
    """The host sees number and value because the guest gave them, and its answer goes into the page."""
    asked = Asked(request(0x7C, rcx=0x4B56_4D08))
    asked.guest.vm.enable_user_space_msr(EXIT_UNKNOWN)
    assert asked.vcpu.run() == Exit(Reason.MSR, msr=0x4B56_4D08)
    asked.vcpu.answer(3 << 32 | 5)
    assert asked.answer() == (0, 0)
    assert (asked.word("rax"), asked.word("rdx")) == (5, 3)
    asked.put(request(0x7C, 1, rcx=0x4B56_4D08, rax=1, rdx=0))
    assert asked.vcpu.run() == Exit(Reason.MSR, msr=0x4B56_4D08, value=1, is_write=True)
    asked.vcpu.answer(error=True)
    # svm_complete_emulated_msr(): the guest is to raise #GP itself.
    assert asked.answer() == (1, 1 << 31 | 3 << 8 | 13)


def test_an_msr_that_nobody_has_is_gp() -> None:
    assert Asked(request(0x7C, rcx=0x1234)).answer() == (1, 1 << 31 | 3 << 8 | 13)


def test_hypercalls() -> None:
    asked = Asked(request(0x81, rax=MAP_GPA_RANGE, cpl=0, rbx=HEAP, rcx=1, rdx=0))
    asked.guest.vm.enable_exit_hypercall(1 << MAP_GPA_RANGE)
    assert asked.vcpu.run() == Exit(Reason.HYPERCALL, number=MAP_GPA_RANGE, arguments=(HEAP, 1, 0))
    assert asked.answer() == (0, 0)
    assert asked.word("rax") == 0
    asked.put(request(0x81, rax=MAP_GPA_RANGE, cpl=3, rbx=HEAP, rcx=1, rdx=0))
    assert asked.answer() == (0, 0)
    assert asked.word("rax") == (1 << 64) - 1, "-KVM_EPERM"


@pytest.mark.parametrize(("width", "size"), [(1 << 4, 1), (1 << 5, 2), (1 << 6, 4)])
def test_ports(width: int, size: int) -> None:
    value = 0x1122_3344 & (1 << 8 * size) - 1
    asked = Asked(request(0x7B, 0x402 << 16 | width, rax=0x1122_3344))
    assert asked.vcpu.run() == Exit(Reason.IO, port=0x402, size=size, value=value, is_write=True)
    assert asked.answer() == (0, 0)
    asked.put(request(0x7B, 0x60 << 16 | width | 1))
    assert asked.vcpu.run() == Exit(Reason.IO, port=0x60, size=size)
    asked.vcpu.answer(0xFFFF_FFFF)
    assert asked.answer() == (0, 0)
    assert asked.word("rax") == (1 << 8 * size) - 1


def test_mmio() -> None:
    """The data lies in the page's buffer, for any address: KVM does not look whether there is a slot."""
    fields = request(0x8000_0002, MMIO + 4, 4, scratch=GHCB + BUFFER)
    asked = Asked(fields, b"\x44\x33\x22\x11")
    assert asked.vcpu.run() == Exit(Reason.MMIO, gpa=MMIO + 4, size=4, value=0x1122_3344, is_write=True)
    assert asked.answer() == (0, 0)
    asked.put(request(0x8000_0001, MMIO, 8, scratch=GHCB + BUFFER))
    assert asked.vcpu.run() == Exit(Reason.MMIO, gpa=MMIO, size=8)
    asked.vcpu.answer(0x0102_0304_0506_0708)
    assert asked.answer() == (0, 0)
    assert asked.guest.memory.read_raw(GHCB + BUFFER, 8) == bytes(range(8, 0, -1))


@pytest.mark.parametrize("scratch", [0, GHCB, GHCB + BUFFER - 1, GHCB + 0xFEF])
def test_scratch_space_in_the_wrong_place(scratch: int) -> None:
    """setup_vmgexit_scratch(): in the page only its buffer counts."""
    assert Asked(request(0x8000_0001, MMIO, 8, scratch=scratch)).answer() == (2, 3)


@pytest.mark.parametrize("code", [0x76, 0x89, 0x8000_0003])
def test_events_that_kvm_just_accepts(code: int) -> None:
    assert Asked(request(code)).answer() == (0, 0)


def test_the_jump_table_of_parked_vcpus() -> None:
    asked = Asked(request(0x8000_0005, 0, 0x8_2000))
    assert asked.answer() == (0, 0)
    asked.put(request(0x8000_0005, 1))
    assert asked.answer() == (0, 0x8_2000)
    asked.put(request(0x8000_0005, 2))
    assert asked.answer() == (2, 5)


def test_the_rest() -> None:
    assert Asked(request(0x8000_FFFD)).answer() == (0, 0b11)
    assert Asked(request(0x8000_0004)).vcpu.run() == Exit(Reason.AP_RESET_HOLD)
    assert Asked(request(0x8000_FFFE)).vcpu.run() == Exit(Reason.SYSTEM_EVENT, value=GHCB)
    assert Asked(request(0x6E)).vcpu.run() == Exit(Reason.INTERNAL_ERROR)
    with pytest.raises(KvmError, match="^KVM_RUN: EINVAL$") as refused:
        Asked(request(0x8000_FFFF)).vcpu.run()
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"code": 0x72, "info1": 0, "rax": 0, "rcx": 0}, 4),
        (request(0x72, rax=0), 4),
        (request(0x72, rax=0xD, rcx=0), 4),
        (request(0x7B, 0x402 << 16 | 1 << 4), 4),
        (request(0x7C), 4),
        (request(0x7C, 1, rcx=0, rax=0), 4),
        (request(0x81, rax=0), 4),
        (request(0x8000_0001, MMIO, 8), 4),
        (request(0x8000_0010), 6),
        (request(0x400), 6),
        (request(0x1_0000_0072, rax=0, rcx=0), 6),
    ],
)
def test_what_is_malformed(fields: dict[str, int], reason: int) -> None:
    """sev_es_validate_vmgexit(): GHCB_ERR_MISSING_INPUT, GHCB_ERR_INVALID_EVENT."""
    assert Asked(fields).answer() == (2, reason)


def test_other_usages_of_the_page() -> None:
    """GHCB_ERR_INVALID_USAGE, before anything else is looked at."""
    assert Asked({}, usage=1).answer() == (2, 2)


def test_a_page_that_is_not_shared_says_nothing() -> None:
    """KVM reads ciphertext: a guest has to clear the C-bit first."""
    guest = es_guest()
    text = f"mov dword ptr [{GHCB + 0x390}], 0x72\n mov eax, [{SHARED + GHCB + 0x398}]\n" + ASK
    vcpu = guest.launch(text)
    vcpu.run()
    assert guest.memory.read_raw(GHCB + 0x390, 4) != (0x72).to_bytes(4, "little")
