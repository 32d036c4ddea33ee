"""CPUID and MSRs, as a guest sees them."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    DATA,
    HEAP,
    PAGE,
    STACK,
    TEXT,
    Guest,
    caught,
    run_to_halt,
)
from mh_builder.parts import PARTS
from mh_emulator.cpu.registers import CR4_OSXSAVE, EFER_NXE
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Reason


def cpuid(vcpu: Vcpu, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    vcpu.set_registers(vcpu.get_registers().with_changes(rip=TEXT, rax=leaf, rcx=subleaf))
    state = run_to_halt(vcpu)
    return state.rax, state.rbx, state.rcx, state.rdx


@pytest.mark.parametrize(
    ("part", "address_bits", "ebx", "asids", "coherent"),
    [
        ("naples", 48, 0x16F, 15, 0),
        ("rome", 48, 0x16F, 509, 0),
        ("milan", 48, 0x173, 509, 1),
        ("genoa", 52, 0x1B3, 1006, 1),
    ],
)
def test_cpuid_shows_the_part(part: str, address_bits: int, ebx: int, asids: int, coherent: int) -> None:
    vcpu = Guest(part).launch("cpuid\n hlt")
    assert cpuid(vcpu, 0x8000_0008)[0] & 0xFF == address_bits
    sev = cpuid(vcpu, 0x8000_001F)
    # EBX[15:12], the number of VMPLs, belongs to SNP, which these guests have not.
    assert (sev[1], sev[2]) == (ebx, asids)
    assert sev[0] & 2
    assert sev[0] >> 10 & 1 == coherent
    vendor = cpuid(vcpu, 0)
    text = b"".join(vendor[n].to_bytes(4, "little") for n in (1, 3, 2))
    assert text == b"AuthenticAMD"
    hypervisor = cpuid(vcpu, 0x4000_0000)
    assert b"".join(n.to_bytes(4, "little") for n in hypervisor[1:]) == b"KVMKVMKVM\0\0\0"
    needed = 1 << 1 | 1 << 9 | 1 << 19 | 1 << 20 | 1 << 25 | 1 << 26 | 1 << 30 | 1 << 31
    features = cpuid(vcpu, 1)
    assert features[2] & needed == needed
    assert features[2] >> 27 & 1 == 0
    assert features[2] >> 28 & 1 == 0, "AVX, which the engine executes wrongly"
    assert cpuid(vcpu, 7)[1] >> 18 & 1
    assert cpuid(vcpu, 7, 1) == (0, 0, 0, 0)
    extended = cpuid(vcpu, 0x8000_0001)
    assert all(extended[3] >> bit & 1 for bit in (20, 26, 29))


def test_cpuid_of_a_plain_guest_has_no_sev_and_osxsave_follows_cr4() -> None:
    guest = Guest(encrypted=False)
    vcpu = guest.launch("cpuid\n hlt")
    assert cpuid(vcpu, 0x8000_001F) == (0, 0, 0, 0)
    vcpu.set_registers(vcpu.get_registers().with_changes(cr4=guest.registers().cr4 | 1 << 18))
    assert cpuid(vcpu, 1)[2] >> 27 & 1


def msr(vcpu: Vcpu, index: int, value: int | None = None) -> int | None:
    """Read or write one MSR in the guest; None for #GP."""
    start = TEXT if value is None else TEXT + 3
    low, high = (0, 0) if value is None else (value & 0xFFFF_FFFF, value >> 32)
    state = vcpu.get_registers().with_changes(
        rip=start, rax=low | 0xDEAD << 32, rdx=high | 0xDEAD << 32, rcx=index | 0xBEEF << 32, rsp=STACK
    )
    vcpu.set_registers(state)
    stop = vcpu.run()
    while stop.reason is Reason.MSR:
        stop = vcpu.run()
    state = vcpu.get_registers()
    if state.rip == 0x2_0000 + 13 + 1:
        assert int.from_bytes(vcpu.read_linear(state.rsp, 16)[8:], "little") == start
        return None
    return state.rdx << 32 | state.rax if value is None else value


def test_msrs() -> None:
    guest = Guest()
    vcpu = guest.launch("rdmsr\n hlt\n wrmsr\n hlt")
    efer = guest.registers().efer
    assert msr(vcpu, 0xC001_0131) == 1
    assert msr(vcpu, 0xC000_0080) == efer
    for index, value in ((0xC000_0102, 0x1234_5678_9ABC_DEF0), (0xC000_0082, 0xFFFF_8000_0000_1000)):
        assert msr(vcpu, index, value) == value
        assert msr(vcpu, index) == value
    assert vcpu.get_registers().kernel_gs_base == 0x1234_5678_9ABC_DEF0
    for index in (0xC001_0130, 0x1234, 0x10):
        assert msr(vcpu, index) is None
        assert msr(vcpu, index, 1) is None
    assert msr(vcpu, 0xC001_0131, 1) is None
    assert msr(vcpu, 0xC000_0080, efer & ~(1 << 8)) is None
    assert msr(vcpu, 0xC000_0080, efer | 1 << 1) is None
    plain = Guest(encrypted=False).launch("rdmsr\n hlt\n wrmsr\n hlt")
    assert msr(plain, 0xC001_0131) is None


def test_efer_written_by_the_guest_changes_what_page_tables_mean() -> None:
    guest = Guest()
    for page in (STACK - PAGE, 0x5_0000, 0x5_1000):
        guest.tables.map(page, page, DATA & ~(1 << 63))
    vcpu = guest.launch(
        f"mov rbx, [{HEAP}]\n mov ecx, 0xc0000080\n rdmsr\n btr eax, 11\n wrmsr\n mov rbx, [{HEAP}]\n hlt"
    )
    fault = caught(vcpu)
    assert (fault.vector, fault.error_code, fault.cr2) == (14, 9, HEAP)
    assert not vcpu.get_registers().efer & EFER_NXE


def test_xgetbv_needs_osxsave_and_the_host_may_take_it_away() -> None:
    """APM volume 3, XGETBV: #UD without CR4.OSXSAVE, which the guest of plain SEV cannot keep."""
    guest = Guest()
    loop = "again: mov rbx, cr4\n xor ecx, ecx\n xgetbv\n hlt\n jmp again"
    on = guest.registers().cr4 | CR4_OSXSAVE
    vcpu = guest.launch(loop, cr4=on)
    state = run_to_halt(vcpu)
    assert (state.rax & 1, state.rbx) == (1, on)
    vcpu.set_registers(state.with_changes(cr4=on & ~CR4_OSXSAVE))
    fault = caught(vcpu)
    assert (fault.vector, fault.error_code, fault.rip) == (6, None, TEXT + 5)
    assert fault.handler.rbx == on & ~CR4_OSXSAVE


@pytest.mark.parametrize("index", [2, 7, 0xFFFF_FFFF])
def test_xgetbv_of_a_register_that_is_not_there(index: int) -> None:
    fault = caught(Guest().launch("xgetbv\n hlt", rcx=index, cr4=Guest().registers().cr4 | CR4_OSXSAVE))
    assert (fault.vector, fault.error_code, fault.rip) == (13, 0, TEXT)


REGISTERS = ("eax", "ebx", "ecx", "edx")

INSTRUCTIONS = {
    (1, "ecx", 0): "f2 0f f0 07",  # SSE3: lddqu xmm0, [rdi]
    (1, "ecx", 1): "66 0f 3a 44 c1 00",  # PCLMULQDQ
    (1, "ecx", 9): "66 0f 38 00 c1",  # SSSE3: pshufb xmm0, xmm1
    (1, "ecx", 13): "48 0f c7 0f",  # cmpxchg16b [rdi]
    (1, "ecx", 19): "66 0f 38 29 c1",  # SSE4.1: pcmpeqq xmm0, xmm1
    (1, "ecx", 20): "66 0f 38 37 c1",  # SSE4.2: pcmpgtq xmm0, xmm1
    (1, "ecx", 22): "0f 38 f0 07",  # movbe eax, [rdi]
    (1, "ecx", 23): "f3 0f b8 c1",  # popcnt eax, ecx
    (1, "ecx", 25): "66 0f 38 dc c1",  # aesenc xmm0, xmm1
    (1, "ecx", 26): "31 c9 0f 01 d0",  # XSAVE: xgetbv of 0
    (1, "ecx", 30): "0f c7 f0",  # rdrand eax
    (1, "edx", 0): "d9 ee",  # FPU: fldz
    (1, "edx", 4): "0f 31",  # rdtsc
    (1, "edx", 5): "b9 80 00 00 c0 0f 32",  # MSR: rdmsr of EFER
    (1, "edx", 8): "0f c7 0f",  # cmpxchg8b [rdi]
    (1, "edx", 15): "0f 44 c1",  # cmove eax, ecx
    (1, "edx", 19): "0f ae 3f",  # clflush [rdi]
    (1, "edx", 23): "0f ef c0",  # MMX: pxor mm0, mm0
    (1, "edx", 24): "0f ae 07",  # fxsave [rdi]
    (1, "edx", 25): "0f 58 c1",  # SSE: addps xmm0, xmm1
    (1, "edx", 26): "66 0f 58 c1",  # SSE2: addpd xmm0, xmm1
    (7, "ebx", 0): "f3 48 0f ae c0",  # rdfsbase rax
    (7, "ebx", 18): "0f c7 f8",  # rdseed eax
    (7, "ebx", 19): "66 0f 38 f6 c1",  # ADX: adcx eax, ecx
    (7, "ebx", 20): "0f 01 ca",  # SMAP: clac
    (7, "ebx", 23): "66 0f ae 3f",  # clflushopt [rdi]
    (7, "ebx", 24): "66 0f ae 37",  # clwb [rdi]
    (0x8000_0001, "ecx", 0): "9f",  # lahf
    (0x8000_0001, "ecx", 5): "f3 0f bd c1",  # ABM: lzcnt eax, ecx
    (0x8000_0001, "edx", 27): "0f 01 f9",  # rdtscp
}
"""An instruction of each feature that brings any, and that the engine has to have where a part shows it."""

WITHOUT = {
    (1, "ecx"): {31},
    (1, "edx"): {1, 2, 3, 6, 7, 9, 11, 12, 13, 14, 16, 17},
    (7, "ebx"): {7},
    (7, "ecx"): {16},
    (0x8000_0001, "ecx"): set[int](),
    (0x8000_0001, "edx"): {11, 20, 26, 29},
}
"""Bits of what is not an instruction, or one of which other tests tell; those of leaf 1 stand in 8000_0001 again."""


@pytest.mark.parametrize("part", sorted(PARTS))
def test_every_feature_that_a_part_shows_is_executed(part: str) -> None:
    """A kernel's decompressor looks for BMI2, and takes it: unlike AVX it needs nothing of the system."""
    vcpu = Guest(part).launch("cpuid\n hlt")
    shown = {
        (leaf, name, bit)
        for leaf, name in WITHOUT
        for bit in range(32)
        if cpuid(vcpu, leaf)[REGISTERS.index(name)] >> bit & 1 and bit not in WITHOUT[leaf, name]
    }
    shown -= {(0x8000_0001, "edx", bit) for bit in range(26)}
    assert shown <= INSTRUCTIONS.keys()
    program = b"".join(bytes.fromhex(INSTRUCTIONS[feature]) for feature in sorted(shown)) + b"\xf4"
    guest = Guest(part)
    guest.contents[TEXT] = program
    cr4 = guest.registers().cr4 | CR4_OSXSAVE | 1 << 16
    state = run_to_halt(guest.launch(rdi=HEAP, cr4=cr4))
    assert state.rip == TEXT + len(program)
