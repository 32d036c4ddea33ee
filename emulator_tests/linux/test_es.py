"""Kernels of a few instructions under SEV-ES, with a GHCB, that move and do not notice: the landing loads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from emulator_tests.linux.small import IDT, LOAD_IDT, SET_GATE, VECTOR, bzimage
from emulator_tests.machine.guests import assemble
from mh_abi import abi
from mh_builder.image.model import Image
from mh_builder.image.vmsa import hosted
from mh_builder.parts import PARTS
from mh_builder.save_area import OFFSETS
from mh_emulator.cpu.registers import Registers
from mh_emulator.host import landing
from mh_emulator.host.launch import launch
from mh_emulator.host.placement import Placement
from mh_emulator.host.site import Site, prepare
from mh_emulator.linux.boot import Boot, LinuxGuest
from mh_emulator.linux.kernel import read_kernel
from mh_emulator.linux.launch import Direct
from mh_emulator.linux.load import Plan
from mh_emulator.linux.stop import Stop, Where
from mh_emulator.owner import POLICY_ES, GuestOwner, OwnerRefuses
from mh_emulator.platform import Platform
from mh_emulator.q35.launch import topology
from mh_emulator.q35.run import GuestStopped
from mh_emulator.secret import Secret

RAM = 128 << 20
SECRET = Secret.fresh(abi.mh_protection.MH_PROTECTION_SEV_ES)
GHCB = 0x5C0_0000

START = f"""
    mov rbx, 0x000ffffffffff000
    mov rax, cr3
    mov ecx, 3
1:  and rax, rbx
    btr rax, {{c_bit}}
    lea rdx, [rax + {GHCB >> 18}]
    mov rax, [rax]
    dec ecx
    jnz 1b
    btr qword ptr [rdx], {{c_bit}}
    mov rax, cr3
    mov cr3, rax
    mov r12d, {GHCB}
    mov eax, 12
    mov ebx, {GHCB}
    mov ecx, 1
    xor edx, edx
    mov r8d, 0x81
    call ask
    lea rax, [rip + nmi]
    mov ebx, {IDT + 16 * 2}
    call set_gate
    lea rax, [rip + timer]
    mov ebx, {IDT + 16 * VECTOR}
    call set_gate
    {LOAD_IDT}
    mov eax, 1
    mov ecx, 0x4b564d08
    call write_msr
    xor r15d, r15d
"""
"""The GHCB's 2 MiB are mapped shared, and its page is; the migration is allowed."""

ROUTINES = f"""
set_gate:   # of ebx: to rax
    {SET_GATE}
    ret
print:      # of rsi, up to a zero
    lodsb
    test al, al
    jz 1f
    movzx eax, al
    mov r8d, 0x7b
    mov r9d, 0x3f80010
    call ask
    jmp print
1:  ret
write_msr:  # ecx: edx:eax
    mov r8d, 0x7c
    mov r9d, 1
    jmp ask
store:      # eax to the local APIC's register r9
    mov [r12 + 0x800], eax
    lea rax, [r12 + 0x800]
    mov [r12 + 0x3a8], rax
    add r9d, 0xfee00000
    mov r8d, 0x80000002
    mov r10d, 4
ask:        # of the host: code r8, r9 and r10
    mov [r12 + {OFFSETS["rax"]}], rax
    mov [r12 + {OFFSETS["rbx"]}], rbx
    mov [r12 + {OFFSETS["rcx"]}], rcx
    mov [r12 + {OFFSETS["rdx"]}], rdx
    mov byte ptr [r12 + {OFFSETS["cpl"]}], 0
    mov [r12 + 0x390], r8
    mov [r12 + 0x398], r9
    mov [r12 + 0x3a0], r10
    mov rax, -1
    mov [r12 + 0x3f0], rax
    mov [r12 + 0x3f8], rax
    mov word ptr [r12 + 0xffa], 1
    mov eax, r12d
    xor edx, edx
    mov ecx, 0xc0010130
    wrmsr
    rep vmmcall
    mov rax, [r12 + {OFFSETS["rax"]}]
    ret
jump_table: # of parked vCPUs: r9 0 is set, to r10, 1 get
    mov r8d, 0x80000005
    jmp ask
set_timer:
    mov eax, 0x1ff
    mov r9d, 0xf0
    call store
    mov eax, {VECTOR | 2 << 17}
    mov r9d, 0x320
    call store
    rdtsc
    add eax, 50000000
    adc edx, 0
    mov ecx, 0x6e0
    jmp write_msr
timer:
    inc r15
    push rax
    push rcx
    push rdx
    xor eax, eax
    mov r9d, 0xb0
    call store
    pop rdx
    pop rcx
    pop rax
    nop
    iretq
nmi:
    {{way}}
half: .asciz "half\\n"
more: .asciz "more\\n"
good: .asciz "good\\n"
"""

WORKS = """
    fld1
    fldpi
    mov rax, 0x1122334455667788
    movq xmm9, rax
    mov r14, rax
    mov rbp, 0x77
    xor r9d, r9d
    mov r10d, 0x7000
    call jump_table
    call set_timer
    lea rsi, [rip + half]
    call print
    lea rsi, [rip + more]
    call print
1:  sti
    hlt
    cli
    test r15, r15
    jz 1b
    cmp rbp, 0x77
    jne 9f
    mov r9d, 1
    call jump_table
    cmp qword ptr [r12 + 0x3a0], 0x7000
    jne 9f
    movq rax, xmm9
    cmp rax, r14
    jne 9f
    faddp
    fistp qword ptr [rsp - 8]
    cmp qword ptr [rsp - 8], 4
    jne 9f
    lea rsi, [rip + good]
    call print
9:  sti
    hlt
"""


def boot(images: Mapping[str, Image], scheme: str, part: str = "milan", way: str = "pop rdx\n iretq") -> Boot:
    c_bit = PARTS[part].c_bit
    helper = hosted(images[scheme], c_bit)
    home = 0 if helper.home is None else helper.home
    reserved = range(home, home + (0 if helper.home is None else helper.memory_bytes))
    code = assemble(START.format(c_bit=c_bit) + WORKS + ROUTINES.format(way=way))
    plan = Plan(read_kernel(bzimage(code)), b"", "", topology(RAM), reserved)
    return Boot(LinuxGuest(PARTS[part], scheme, "own", RAM, Direct(plan, helper, SECRET)), lambda _: None)


@pytest.mark.parametrize("where", [Where.SENT, Where.IDLE, Where.INTERRUPT])
def test_a_kernel_does_not_notice(es_images: Mapping[str, Image], where: Where) -> None:
    stays, moves = boot(es_images, "regions").run(), boot(es_images, "regions").migrate(Stop("half", where))
    assert stays.console == moves.console == "half\nmore\ngood\n"
    assert stays.milestones[-1].virtual_ms == moves.milestones[-1].virtual_ms
    assert moves.good
    assert moves.stopped is None
    moved = moves.moved
    assert moved is not None
    assert moved.pages > 10
    assert moved.shared_pages == 1
    assert (moved.source_plain_pages, moved.naive_equal_pages) == (0, 0)


@pytest.mark.parametrize("part", PARTS)
def test_every_part(es_images: Mapping[str, Image], part: str) -> None:
    report = boot(es_images, "isolated", part).migrate(Stop("half"))
    assert (report.console, report.good) == ("half\nmore\ngood\n", True)


@pytest.mark.parametrize("instructions", [1, 2, 3, 10, 33, 64, 65, 90, 120])
def test_a_kernel_is_stopped_anywhere(es_images: Mapping[str, Image], instructions: int) -> None:
    """With a request of its own in the GHCB, or behind one."""
    stays = boot(es_images, "regions").run()
    moves = boot(es_images, "regions").migrate(Stop("half", instructions=instructions))
    assert stays.console == moves.console == "half\nmore\ngood\n"
    assert stays.milestones[-1].virtual_ms == moves.milestones[-1].virtual_ms
    assert moves.good


def test_a_kernel_that_is_idle_before_it_has_come_so_far(es_images: Mapping[str, Image]) -> None:
    with pytest.raises(GuestStopped, match="^the guest is idle, and has not executed 100000 more instructions;"):
        boot(es_images, "regions").migrate(Stop("half", instructions=100_000))


def test_a_kernel_that_the_landing_does_not_take(es_images: Mapping[str, Image]) -> None:
    end = 0x100 | abi.MH_LANDING_REASON_SET << 12 | abi.mh_landing_end.MH_LANDING_WAY << 16
    booted = boot(es_images, "regions", way="iretq").migrate
    with pytest.raises(GuestStopped, match=f"^the guest asks for its end, the GHCB's MSR is {end:#x}: .*: moved$"):
        booted(Stop("half"))


def other_bytes(site: Site, state: Registers) -> tuple[Site, Registers]:
    *others, (place, contents) = site.loaded
    return replace(site, loaded=(*others, (place, contents[:-1] + b"\1"))), state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda site, state: (site, state), None),
        (lambda site, state: (replace(site, loaded=site.loaded[:1]), state), "contents behind the helper: expected 3"),
        (lambda site, state: (site, state.with_changes(rip=state.rip + 2)), "content 3: expected SHA-256 "),
        (other_bytes, "content 1: expected SHA-256 "),
    ],
)  # fmt: skip
def test_the_owner_knows_the_landing(
    es_images: Mapping[str, Image],
    change: Callable[[Site, Registers], tuple[Site, Registers]],
    message: str | None,
) -> None:
    """Its bytes, with its page tables, and where its vCPU begins; otherwise no helper of the target has a secret."""
    platform = Platform(PARTS["milan"], RAM + (96 << 20), 2)
    helper = hosted(es_images["regions"], PARTS["milan"].c_bit)
    site, landed = landing.add(prepare(platform, Placement(topology(RAM), ()), helper), 4)
    rest = landing.rest(landed.landing, [site.helper.registers(0)])
    owner = GuestOwner(POLICY_ES, helper=helper.digest(PARTS["milan"].c_bit), rest=rest)
    site, state = change(site, landed.registers)
    if message is None:
        launch(site, owner, (), SECRET, state)
        return
    with pytest.raises(OwnerRefuses, match=f"^{message}"):
        launch(site, owner, (), SECRET, state)
