"""Kernels of a few instructions that are stopped in the middle, or go on before their pages are there."""

from __future__ import annotations

import pytest

from emulator_tests.linux.test_small import ALLOW, HANDLER, SAY, SET_TIMER, boot
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_emulator.linux.boot import Boot
from mh_emulator.linux.stop import Stop, Where
from mh_emulator.q35.run import GuestStopped

GDT, TSS, KERNEL_STACK = 0x7000, 0x7800, 0x9000
TO_PROCESS = f"""
    mov rax, cr3
    mov rbx, 0x000ffffffffff000
    mov ecx, 2
1:  and rax, rbx
    btr rax, {{c_bit}}
    or qword ptr [rax], 4
    mov rax, [rax]
    dec ecx
    jnz 1b
    and rax, rbx
    btr rax, {{c_bit}}
    mov ecx, 512
1:  or qword ptr [rax + 8 * rcx - 8], 4
    dec ecx
    jnz 1b
    mov rax, cr3
    mov cr3, rax
    mov rbx, {GDT}
    mov rax, 0x00af9b000000ffff
    mov [rbx + 0x10], rax
    mov rax, 0x00cf93000000ffff
    mov [rbx + 0x18], rax
    mov rax, 0x00cff3000000ffff
    mov [rbx + 0x20], rax
    mov rax, 0x00affb000000ffff
    mov [rbx + 0x28], rax
    mov rax, {0x0000_8900_0000_0067 | TSS << 16}
    mov [rbx + 0x30], rax
    mov qword ptr [rbx + 0x38], 0
    push rbx
    sub rsp, 2
    mov word ptr [rsp], 0x3f
    lgdt [rsp]
    add rsp, 10
    mov qword ptr [{TSS} + 4], {KERNEL_STACK}
    mov eax, 0x30
    ltr ax
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x00180010
    wrmsr
    inc ecx
    lea rax, [rip + entry]
    mov rdx, rax
    shr rdx, 32
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x200
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000080
    rdmsr
    or eax, 1
    wrmsr
    lea rsi, [rip + half]
    call print
    {{before}}
    push 0x23
    push {KERNEL_STACK}
    push 0x202
    push 0x2b
    lea rax, [rip + process]
    push rax
    iretq
"""
"""From the kernel, which prints that it is ready, to a process with interrupts on."""
PROCESS = f"""
    {ALLOW}
    xor r15, r15
    {SET_TIMER}
    {TO_PROCESS}
process:
    {{work}}
    syscall
after:
    ud2
entry:
    lea rsi, [rip + good]
    call print
    sti
    hlt
{HANDLER}
half: .asciz "half\\n"
good: .asciz "good\\n"
"""


def process(images: dict[str, Image], work: str, part: str = "milan", before: str = "") -> Boot:
    """A process that does `work`; its kernel has done something else `before`."""
    return boot(images, PROCESS.format(work=work, before=before, c_bit=PARTS[part].c_bit), part)


WAITS = "1: rdtsc\n test r15, r15\n jz 1b"


@pytest.mark.parametrize("where", [Where.SYSCALL, Where.INTERRUPT])
@pytest.mark.parametrize("part", ["milan", "genoa"])
def test_a_process_is_stopped_in_its_kernel(images: dict[str, Image], where: Where, part: str) -> None:
    """At the first instruction there, where nothing of the process is saved yet; the rest is as of one that stays."""
    stays, moves = process(images, WAITS, part).run(), process(images, WAITS, part).migrate(Stop("half", where))
    assert (stays.console, moves.console) == ("half\ngood\n", "half\ngood\n")
    assert moves.good
    stopped = moves.stopped
    assert stopped is not None
    assert (stopped.privilege, stopped.interrupts) == (0, False)
    assert stopped.process_rip is not None
    # `entry` is two bytes behind what RCX has, the instruction behind SYSCALL; the loop is before it.
    ahead = stopped.rip - stopped.process_rip
    assert ahead == 2 if where is Where.SYSCALL else ahead > 2
    assert stays.milestones[-1].virtual_ms == moves.milestones[-1].virtual_ms


def test_a_kernel_that_its_timer_interrupts_is_let_go_on(images: dict[str, Image]) -> None:
    """It is its process that has to be interrupted."""
    before = f"sti\n {WAITS}\n cli\n xor r15, r15\n {SET_TIMER}"
    once, twice = (process(images, WAITS, before=text).migrate(Stop("half", Where.INTERRUPT)) for text in ("", before))
    first, second = (
        next(one.virtual_ms for one in report.milestones if one.what == "stopped") for report in (once, twice)
    )
    assert first < TIMER_MS + 5 < 2 * TIMER_MS < second
    assert once.console == twice.console


def test_nowhere_to_be_stopped(images: dict[str, Image]) -> None:
    idle = f'{ALLOW} {SAY} sti\n hlt\ntext: .asciz "here\\n"'
    with pytest.raises(GuestStopped, match="^the guest is idle, and has not made a system call"):
        boot(images, idle).migrate(Stop("here", Where.SYSCALL))
    with pytest.raises(GuestStopped, match="^the guest is idle, and has not been interrupted in its process"):
        boot(images, idle).migrate(Stop("here", Where.INTERRUPT))
    with pytest.raises(GuestStopped, match='^the guest is idle, and has not printed "there"'):
        boot(images, idle).migrate(Stop("there", Where.INTERRUPT))


TIMER_MS = 25
"""What `SET_TIMER` sets."""

USES_MEMORY = f"""
    {ALLOW}
    xor r15, r15
    mov rbx, 0x3000000
    mov ecx, 200
1:  mov [rbx], rcx
    add rbx, 4096
    loop 1b
    {SET_TIMER}
    lea rsi, [rip + half]
    call print
    sti
    mov rbx, 0x3000000
    mov ecx, 50
    xor r14, r14
1:  push rcx
    rdtsc
    pop rcx
    add r14, [rbx]
    mov [rbx + 8], r14
    add rbx, 4096
    loop 1b
2:  hlt
    test r15, r15
    jz 2b
    cmp r14, {sum(range(151, 201))}
    jne 3f
    lea rsi, [rip + good]
    call print
3:  hlt
    jmp 3b
    {HANDLER}
half: .asciz "half\\n"
good: .asciz "good\\n"
"""


@pytest.mark.parametrize("part", PARTS)
def test_pages_follow_a_guest_that_goes_on(images: dict[str, Image], part: str) -> None:
    """Each comes when it is needed, with those behind it, or at the end; a timer interrupts meanwhile."""
    stays = boot(images, USES_MEMORY, part).run()
    moves = boot(images, USES_MEMORY, part).post_copy(Stop("half"))
    assert stays.console == moves.console == "half\ngood\n"
    assert [one.what for one in moves.milestones] == ["launched", "stopped", "resumed", "moved", "idle"]
    assert stays.milestones[-1].virtual_ms == moves.milestones[-1].virtual_ms
    moved = moves.moved
    assert moved is not None
    assert moved.good
    assert 0 < moved.demanded_pages < moved.pages // 2
    assert moved.pages > 200


def test_a_guest_that_ends_badly_before_its_pages_are_there(images: dict[str, Image]) -> None:
    text = f'{ALLOW} {SAY} cli\n hlt\ntext: .asciz "here\\n"'
    with pytest.raises(GuestStopped, match="^the guest halts with interrupts off: .* last seen: resumed$"):
        boot(images, text).post_copy(Stop("here"))
