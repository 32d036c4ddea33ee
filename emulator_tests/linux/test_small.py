"""Kernels of a few instructions: how they end, what they find, and what of them moves."""

from __future__ import annotations

import pytest

from emulator_tests.linux.small import IDT, LOAD_IDT, SET_GATE, VECTOR, kernel
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_emulator.linux import boot as boots
from mh_emulator.linux.boot import Boot, LinuxGuest
from mh_emulator.linux.kernel import read_kernel
from mh_emulator.linux.launch import Direct
from mh_emulator.linux.load import Plan
from mh_emulator.linux.stop import Stop, Where
from mh_emulator.q35.launch import topology
from mh_emulator.q35.run import GuestStopped
from mh_emulator.secret import Secret

RAM = 128 << 20
SECRET = Secret.fresh(abi.mh_protection.MH_PROTECTION_SEV)
ALLOW = "mov ecx, 0x4b564d08\n mov eax, 1\n xor edx, edx\n wrmsr\n"
SAY = "lea rsi, [rip + text]\n call print\n"


def boot(images: dict[str, Image], text: str, part: str = "milan") -> Boot:
    helper = parse_image(images["regions"].data)
    home = int(helper.descriptor.home)
    plan = Plan(read_kernel(kernel(text)), b"", "", topology(RAM), range(home, home + helper.memory_bytes))
    return Boot(LinuxGuest(PARTS[part], "regions", "own", RAM, Direct(plan, helper, SECRET)), lambda _: None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cli\n hlt",
            "the guest halts with interrupts off: at 0x1000202, after 0 accesses to devices; last seen: launch",
        ),
        ("push 0\n push 0\n lidt [rsp]\n ud2", "triple fault: at 0x100020"),
        ("mov rax, 0x90000000\n jmp rax", "load from GPA 0x90000000, where nothing is"),
        (
            f'{SAY}\n jmp .\ntext: .asciz "---[ end Kernel panic - not syncing: own ]---\\n"',
            "the kernel has given up: at 0x1000",
        ),
    ],
)
def test_bad_ends_say_where(images: dict[str, Image], text: str, message: str) -> None:
    with pytest.raises(GuestStopped) as caught:
        boot(images, text.replace("jmp .", "9: jmp 9b")).run()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1: jmp 1b", "1: rdtsc\n jmp 1b"], ids=["at all", "for the time"])
def test_waiting_ends(images: dict[str, Image], monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(boots, "SILENT_SECONDS", 0.2)
    with pytest.raises(GuestStopped, match="^the guest waits for ever: at 0x100020"):
        boot(images, text).run()


def test_a_kernel_that_says_nothing_is_not_migrated(images: dict[str, Image]) -> None:
    with pytest.raises(GuestStopped, match="^the kernel has not allowed its migration; last seen: launched"):
        boot(images, "sti\n hlt").migrate(Stop())


def test_every_bank_of_the_machine_check_architecture_is_there(images: dict[str, Image]) -> None:
    """CPUID shows it, and Linux 6.12 panics where one of its MSRs faults: all that its capabilities name are there."""
    banks = """
        mov ecx, 0x179
        rdmsr
        movzx ebx, al
        shl ebx, 2
        add ebx, 0x400
        mov ecx, 0x17a
    1:  rdmsr
        wrmsr
        inc ecx
        cmp ecx, 0x17c
        jb 1b
        mov ecx, 0x400
    2:  rdmsr
        wrmsr
        inc ecx
        cmp ecx, ebx
        jb 2b
    """
    report = boot(images, f'{banks}\n{SAY} sti\n hlt\ntext: .asciz "all\\n"').run()
    assert report.console == "all\n"
    with pytest.raises(GuestStopped, match="^triple fault"):
        boot(images, f"{banks}\n rdmsr\n sti\n hlt").run()


def test_a_line_that_does_not_come(images: dict[str, Image]) -> None:
    with pytest.raises(GuestStopped, match='^the guest is idle, and has not printed "yes"'):
        boot(images, f"{ALLOW} sti\n hlt").migrate(Stop("yes"))


MSRS = {
    0xC000_0081: 0x0023_0010_0000_0000,  # STAR
    0xC000_0082: 0xFFFF_8000_0000_1000,  # LSTAR
    0xC000_0083: 0xFFFF_8000_0000_2000,  # CSTAR
    0xC000_0084: 0x0000_0000_0004_7700,  # SFMASK
    0xC000_0102: 0xFFFF_8000_0000_3000,  # KernelGSBase
    0xC000_0103: 0x0000_0000_0000_0007,  # TSC_AUX
    0x0000_0277: 0x0007_0106_0007_0406,  # PAT
    0x4B56_4D00: 0x0000_0000_0000_7000,  # kvmclock: wall clock
    0x4B56_4D01: 0x0000_0000_0000_7101,  # kvmclock: system time
}
SET_TIMER = f"""
    lea rax, [rip + handler]
    mov rbx, {IDT + 16 * VECTOR}
    {SET_GATE}
    {LOAD_IDT}
    mov ebp, 0xfee00000
    mov dword ptr [rbp + 0xf0], 0x1ff
    mov dword ptr [rbp + 0x320], {VECTOR | 2 << 17}
    rdtsc
    add eax, 50000000
    adc edx, 0
    mov ecx, 0x6e0
    wrmsr
"""
HANDLER = """
handler:
    inc r15
    mov dword ptr [rbp + 0xb0], 0
    iretq
"""


def test_all_that_a_kernel_sets_moves(images: dict[str, Image]) -> None:
    """MSRs that KVM keeps, x87 and SSE, and a timer that was set before and expires after the migration."""
    writes = "".join(
        f"mov ecx, {index}\n mov eax, {value & 0xFFFFFFFF}\n mov edx, {value >> 32}\n wrmsr\n"
        for index, value in MSRS.items()
    )
    reads = "".join(
        f"mov ecx, {index}\n rdmsr\n shl rdx, 32\n or rax, rdx\n mov rbx, {value}\n cmp rax, rbx\n jne bad\n"
        for index, value in MSRS.items()
    )
    text = f"""
        {ALLOW}
        {writes}
        fld1
        fldpi
        mov rax, 0x1122334455667788
        movq xmm9, rax
        mov r14, rax
        xor r15, r15
        {SET_TIMER}
        lea rsi, [rip + half]
        call print
        sti
        hlt
        cli
        {reads}
        cmp r15, 1
        jne bad
        movq rax, xmm9
        cmp rax, r14
        jne bad
        faddp
        fistp qword ptr [rsp - 8]
        cmp qword ptr [rsp - 8], 4
        jne bad
        lea rsi, [rip + good]
        call print
    bad:
        sti
        hlt
    {HANDLER}
    half: .asciz "half\\n"
    good: .asciz "good\\n"
    """
    reports = [boot(images, text).run(), boot(images, text).migrate(Stop("half"))]
    assert [report.console for report in reports] == ["half\ngood\n"] * 2
    moved = reports[1].moved
    assert moved is not None
    assert moved.equal
    assert moved.pages > 10
    assert reports[1].guest_ok is None
    assert reports[1].milestones[-1].virtual_ms == reports[0].milestones[-1].virtual_ms


def test_a_kernel_that_is_stopped_asleep(images: dict[str, Image]) -> None:
    """Its HLT is the host's exit; on the target its timer wakes it, and it goes on."""
    text = f"""
        {ALLOW}
        xor r15, r15
        lea rsi, [rip + half]
        call print
        {SET_TIMER}
    1:  sti
        hlt
        test r15, r15
        jz 1b
        lea rsi, [rip + good]
        call print
        cli
        mov dword ptr [rbp + 0x320], 0x10000
        sti
        hlt
    {HANDLER}
    half: .asciz "half\\n"
    good: .asciz "good\\n"
    """
    report = boot(images, text).migrate(Stop("half", Where.IDLE))
    assert report.console == "half\ngood\n"
    assert report.good
    assert [one.what for one in report.milestones] == ["launched", "stopped", "moved", "idle"]


@pytest.mark.parametrize("part", PARTS)
def test_every_part(images: dict[str, Image], part: str) -> None:
    text = f'{ALLOW} {SAY} sti\n hlt\n hlt\ntext: .asciz "here\\n"'
    report = boot(images, text, part).migrate(Stop("here"))
    assert (report.console, report.good) == ("here\n", True)


def test_a_kernel_that_writes_where_the_helper_lies(images: dict[str, Image]) -> None:
    home = int(parse_image(images["regions"].data).descriptor.home)
    report = boot(images, f"mov byte ptr [{home + 0x2345}], 0x5a\n sti\n hlt").run()
    assert (report.helper_equal, report.good) == (False, False)
    assert boot(images, "sti\n hlt").run().good
