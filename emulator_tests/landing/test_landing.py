"""The landing: a guest that knows nothing of it goes on with all its registers; what cannot be loaded is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from emulator_tests.landing.guest import (
    AT,
    HALTS,
    WAY,
    Change,
    End,
    Target,
    arrived,
    bits,
    both,
    goes_on,
    launched,
    meant,
    number,
    refused,
    segment,
    source,
    vmsa_of,
    whole,
)
from emulator_tests.machine.guests import (
    CODE,
    DATA,
    HANDLERS,
    HEAP,
    IDT,
    PAGE,
    RSP0,
    RW,
    STACK,
    TABLES,
    TEXT,
    TSS,
    US,
    USER_CS,
    USER_SS,
    USER_STACK,
    USER_TEXT,
    A,
    D,
    Guest,
    P,
    assemble,
    gate,
)
from mh_builder.landing import Landing
from mh_builder.parts import PARTS
from mh_builder.save_area import Segment
from mh_emulator.cpu.registers import (
    CR4_OSXSAVE,
    CR4_SMAP,
    RFLAGS_AC,
    RFLAGS_IF,
    RFLAGS_NT,
    X87,
    Hidden,
    Segments,
    SystemSegment,
)
from mh_emulator.kvm import EsVcpu
from mh_emulator.kvm.exits import Exit, Reason

DATA_3, CODE_3 = Hidden(0xFFFF_FFFF, 0xCF3), Hidden(0xFFFF_FFFF, 0xAFB)
KERNEL = Segments()
PROCESS = Segments(es=DATA_3, cs=CODE_3, ss=DATA_3, ds=DATA_3, fs=DATA_3, gs=DATA_3)
CR4_PGE, CR4_PCIDE = 1 << 7, 1 << 17
UNMAPPED = HEAP + 2 * PAGE
FRAME = 48

GENERAL: dict[str, Any] = {
    name: 0x1111_2222_3333_0000 + number
    for number, name in enumerate(("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))))
}
REST: dict[str, Any] = {
    "fs_base": 0x1234_5678_9ABC,
    "gs_base": 0xFFFF_8000_0000_1000,
    "kernel_gs_base": 0xFFFF_8000_0000_2000,
    "star": 0x0023_0010 << 32,
    "lstar": 0xFFFF_FFFF_8100_0000,
    "sfmask": 0x4_7700,
    "cr2": 0x7FFF_1234_5678,
    "mxcsr": 0x1FA0,
    "xmm": tuple(number << 100 | 0xABC0 + number for number in range(16)),
    "x87": X87(0x027F, 5 << 11, 0b1110_0001, tuple(number << 64 | 1 << 63 | number for number in range(1, 9))),
    "ldtr": SystemSegment(0x30, 0xFFFF_8000_0000_3000, 0x1F, 0x8200),
}
IN_KERNEL: dict[str, Any] = {"rsp": STACK - 0x123, "ds": USER_SS, "es": USER_SS, "fs": 0x10, "gs": 0x10}
IN_PROCESS: dict[str, Any] = {
    "rip": USER_TEXT, "rsp": USER_STACK - 0x28, "cs": USER_CS, "ss": USER_SS,
    "ds": USER_SS, "es": USER_SS, "fs": USER_SS, "gs": USER_SS, "hidden": PROCESS,
}  # fmt: skip


@pytest.mark.parametrize(("part", "levels"), [("milan", 4), ("naples", 4), ("genoa", 4), ("genoa", 5)])
def test_a_kernel_goes_on(part: str, levels: int) -> None:
    """Every register, with nothing of it used on the way but 48 bytes below its stack, and below what is below that."""
    guest = source(part, levels)
    hidden = KERNEL._replace(ds=DATA_3, es=DATA_3)
    rflags = 0xAD7 & ~RFLAGS_IF | RFLAGS_AC | RFLAGS_NT
    vcpu = launched(guest, "nop\n hlt", **GENERAL | REST | IN_KERNEL, hidden=hidden, rflags=rflags & ~(1 << 8))
    state, changed = goes_on(guest, vcpu)
    assert state.rip == TEXT + 2
    assert {name: getattr(state, name) for name in GENERAL} == GENERAL
    assert {name: getattr(state, name) for name in REST} == REST
    frame = (STACK - 0x123 - 128 & ~15) - FRAME
    assert set(changed) <= set(range(frame, frame + FRAME))
    assert changed


@pytest.mark.parametrize(("part", "levels"), [("milan", 4), ("genoa", 5)])
def test_a_process_goes_on(part: str, levels: int) -> None:
    """Its stack is not touched: what IRETQ takes lies where the next interrupt would put it."""
    guest = source(part, levels)
    guest.contents[USER_TEXT] = assemble("nop\n ud2")
    vcpu = launched(guest, **GENERAL | REST | IN_PROCESS, rflags=0xAD7 & ~(1 << 8))
    state, changed = goes_on(guest, vcpu)
    assert state.rip == HANDLERS + 6 + 1
    assert struct.unpack("<5Q", guest.private(RSP0 - 40, 40)) == (
        USER_TEXT + 1, USER_CS, 0xAD7 & ~(1 << 8), USER_STACK - 0x28, USER_SS,
    )  # fmt: skip
    assert set(changed) <= set(range(RSP0 - FRAME, RSP0 - FRAME + 8))


def test_a_process_is_single_stepped_on() -> None:
    """IRETQ loads TF: the trap comes behind the next instruction, as without a migration."""
    guest = source()
    guest.contents[USER_TEXT] = assemble("nop\n nop\n ud2")
    vcpu = launched(guest, **IN_PROCESS, rflags=0x302)
    state, _ = goes_on(guest, vcpu)
    assert state.rip == HANDLERS + 1 + 1
    assert struct.unpack("<Q", guest.private(RSP0 - 40, 8)) == (USER_TEXT + 1,)


def test_a_kernel_on_a_process_stack_goes_on() -> None:
    """As at the first instruction behind SYSCALL; SMAP keeps a supervisor from it."""
    guest = source()
    vcpu = launched(guest, rsp=USER_STACK - 8, ss=0x10, cr4=guest.registers().cr4 | CR4_SMAP)
    goes_on(guest, vcpu)


@pytest.mark.parametrize("pge", [0, CR4_PGE])
def test_a_kernel_with_pcid_goes_on(pge: int) -> None:
    guest = source()
    cr4 = guest.registers().cr4 | CR4_PCIDE | pge
    state, _ = goes_on(guest, launched(guest, cr4=cr4, cr3=guest.cr3 | 5))
    assert (state.cr3, state.cr4 & (CR4_PCIDE | CR4_PGE)) == (guest.cr3 | 5, CR4_PCIDE | pge)


@pytest.mark.parametrize("hidden", [Segment(0, 0x082, 0xFFFF), Segment(0, 0, 0)])
def test_null_selectors_and_no_task(hidden: Segment) -> None:
    """What they hide means nothing; the bases of FS and GS do."""
    guest = source()
    vcpu = launched(guest, ds=0, es=1, fs=3, gs=0, fs_base=0x5000, gs_base=0x6000, tr=SystemSegment())
    state, _ = goes_on(guest, vcpu, whole("ldtr", hidden))
    assert (state.ds, state.es, state.fs, state.gs, state.fs_base, state.gs_base) == (0, 1, 3, 0, 0x5000, 0x6000)


def test_msrs_that_lie_in_a_vmsa_go_on() -> None:
    """CSTAR, SYSENTER and PAT: KVM has none of them."""
    values = {
        0xC000_0083: 0xFFFF_8000_0000_4000,
        0x174: 0x10,
        0x175: 0x7000,
        0x176: 0x8000,
        0x277: 0x0007_0106_0007_0406,
    }
    writes = "".join(
        f"mov ecx, {index}\n mov eax, {value & 0xFFFF_FFFF}\n mov edx, {value >> 32}\n wrmsr\n"
        for index, value in values.items()
    )
    names = ("rbx", "rbp", "rsi", "rdi", "r8")
    reads = "".join(
        f"mov ecx, {index}\n rdmsr\n shl rdx, 32\n or rax, rdx\n mov {name}, rax\n"
        for name, index in zip(names, values, strict=True)
    )
    guest = source()
    vcpu = guest.launch(f"{writes}hlt\n{reads}hlt")
    assert isinstance(vcpu, EsVcpu)
    assert vcpu.run() == HALTS
    state, _ = goes_on(guest, vcpu)
    assert [getattr(state, name) for name in names] == [*values.values()]


@pytest.mark.parametrize("up", [1, 2])
def test_it_goes_on_in_large_pages(up: int) -> None:
    """All of its memory once more, in a page of 2 MiB or 1 GiB, from where it runs; its tables and its way too."""
    guest = source()
    far = 0xFFFF_8000_4000_0000
    entry = guest.tables.entry_address(far)
    for _ in range(up):
        *_, entry = (at for at, value in guest.tables.entries.items() if value & 0xF_FFFF_F000 == entry & ~0xFFF)
    guest.tables.entries[entry] = P | RW | A | D | 1 << 7 | guest.tables.c_mask
    guest.contents[IDT] = b"".join(gate(far + HANDLERS + vector) for vector in range(256))
    guest.tables.map(HANDLERS, HANDLERS, DATA)
    vcpu = launched(guest, rip=far + TEXT, rsp=far + STACK)
    state, _ = goes_on(guest, vcpu)
    assert state.rip == far + TEXT + 1


@pytest.mark.parametrize("name", ["rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi"])
def test_any_register_is_a_way(name: str) -> None:
    guest = source(way=f"pop {name}\n iretq")
    goes_on(guest, launched(guest, **GENERAL))


@pytest.mark.parametrize("slot", [3, 0x1FF])
def test_a_way_is_anywhere_but_where_the_landing_is(slot: int) -> None:
    guest = source()
    reached_at(guest, slot)
    goes_on(guest, launched(guest, **GENERAL))


@pytest.mark.parametrize("offset", [3, 7, PAGE - 3])
def test_a_way_is_looked_for_in_the_page_behind_too(offset: int) -> None:
    """Up to its last byte; there has to be room for MOV CR3 before it."""
    guest = source(way="nop")
    guest.contents[HANDLERS + PAGE] = bytes(offset) + assemble("pop rbx\n iretq")
    guest.tables.map(HANDLERS + PAGE, HANDLERS + PAGE, CODE)
    goes_on(guest, launched(guest, **GENERAL))


def test_it_waits_for_registers() -> None:
    guest = source()
    vcpu = launched(guest, **GENERAL)
    target = Target(guest)
    for _ in range(2):
        assert target.vcpu.run() == HALTS
    target.receive(guest, vmsa_of(guest, vcpu))
    assert (vcpu.run(), target.vcpu.run()) == (HALTS, HALTS)
    assert meant(target.guest.inside(target.vcpu)) == meant(guest.inside(vcpu))


def test_what_is_refused_stays_so() -> None:
    guest = source(way="iretq")
    target = arrived(guest, launched(guest))
    for _ in range(2):
        assert refused(target.vcpu.run()) is End.MH_LANDING_WAY


def test_a_second_migration() -> None:
    guest = source()
    vcpu = launched(guest, "hlt\n nop\n hlt", **GENERAL | REST)
    once = arrived(guest, vcpu)
    assert (vcpu.run(), once.vcpu.run()) == (HALTS, HALTS)
    twice = arrived(once.guest, once.vcpu)
    assert (vcpu.run(), twice.vcpu.run()) == (HALTS, HALTS)
    assert meant(twice.guest.inside(twice.vcpu)) == meant(guest.inside(vcpu))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *((bits("efer", 1 << bit), End.MH_LANDING_MODE) for bit in (8, 10, 11)),
        *((bits("cr0", 1 << bit), End.MH_LANDING_MODE) for bit in (0, 31)),
        *((bits("cr4", 1 << bit), End.MH_LANDING_MODE) for bit in (5, 12)),
        *((bits("cr4", 1 << bit), End.MH_LANDING_FEATURE) for bit in (22, 23, 24)),
        *((number(name, 1 << 2), End.MH_LANDING_FEATURE) for name in ("xcr0", "xss", "sev_features", "dbgctl", "pkru")),
        (number("dr7", 0x401), End.MH_LANDING_FEATURE),
        (bits("rflags", 1 << 17), End.MH_LANDING_LEVEL),
        (number("cpl", 3), End.MH_LANDING_LEVEL),
        (segment("cs", selector=0x09), End.MH_LANDING_LEVEL),
        (both(number("cpl", 1), segment("cs", selector=0x09)), End.MH_LANDING_LEVEL),
        (segment("cs", attributes=0xC9B), End.MH_LANDING_LEVEL),
        (number("rip", 1 << 47), End.MH_LANDING_ADDRESS),
        (number("rip", (1 << 64) - (1 << 47) - 1), End.MH_LANDING_ADDRESS),
        (segment("ds", selector=0x14), End.MH_LANDING_SEGMENT),
        (whole("es", Segment(0x10, 0xC13, 0xFFFF_FFFF)), End.MH_LANDING_SEGMENT),
        (whole("fs", Segment(0x10, 0xC83, 0xFFFF_FFFF)), End.MH_LANDING_SEGMENT),
        (whole("gs", Segment(0x10, 0xC93, 0xFFFF_0000)), End.MH_LANDING_SEGMENT),
        (whole("ds", Segment(0x10, 0x493, 0x10_0000)), End.MH_LANDING_SEGMENT),
        (segment("tr", attributes=0x089), End.MH_LANDING_SEGMENT),
        (segment("tr", selector=0x2C), End.MH_LANDING_SEGMENT),
        (segment("tr", selector=0), End.MH_LANDING_SEGMENT),
        (whole("ldtr", Segment(0x30, 0x08B, 0xFFFF)), End.MH_LANDING_SEGMENT),
        (whole("ldtr", Segment(0x34, 0x082, 0xFFFF)), End.MH_LANDING_SEGMENT),
        (number("g_pat", 2), End.MH_LANDING_FAULT),
        (number("xcr0", 3), End.MH_LANDING_FAULT),
        (number("rsp", 0), End.MH_LANDING_STACK),
        (number("rsp", (1 << 50) + STACK), End.MH_LANDING_STACK),
        (number("rsp", 0x4000_0800), End.MH_LANDING_STACK),
        (number("cr3", 1), End.MH_LANDING_WAY),
        (bits("cr3", 1 << 40), End.MH_LANDING_WAY),
        (bits("cr3", 1 << PARTS["milan"].c_bit), End.MH_LANDING_WAY),
        (segment("idtr", limit=0), End.MH_LANDING_WAY),
        (segment("idtr", base=0x5000_0000), End.MH_LANDING_WAY),
    ],
)
def test_what_cannot_be_loaded_is_refused(change: Change, reason: End) -> None:
    guest = source()
    vcpu = launched(guest, ds=0x10, es=0x10, fs=0x10, gs=0x10)
    assert refused(arrived(guest, vcpu, change).vcpu.run()) is reason


def test_a_segment_that_no_kernel_can_load_is_the_end() -> None:
    """By then the IDT leads nowhere."""
    guest = source()
    vcpu = launched(guest, ds=0x10)
    assert arrived(guest, vcpu, segment("ds", selector=0x13)).vcpu.run() == Exit(Reason.SHUTDOWN)


def reached_at(guest: Guest, slot: int) -> None:
    """Its handlers once more, where that entry of its root table leads, and nowhere else."""
    va = slot << 39 | HANDLERS | (0xFFFF << 48 if slot & 0x100 else 0)
    guest.tables.map(va, HANDLERS, CODE)
    guest.tables.map(HANDLERS, HANDLERS, DATA)
    guest.contents[IDT] = gate(va) * 256


def without_way(guest: Guest) -> None:
    guest.patch(WAY, assemble("pop rsp\n iretq\n ret\n iretq"))


def at_the_edge(guest: Guest) -> None:
    guest.patch(WAY, bytes(3))
    guest.patch(HANDLERS + PAGE - 2, b"\x5a\x48")
    guest.contents[HANDLERS + PAGE] = b"\xcf"


def too_early(guest: Guest) -> None:
    guest.patch(WAY, bytes(3))
    guest.contents[HANDLERS + PAGE] = b"\xcc\xcc" + assemble("pop rdx\n iretq")
    guest.tables.map(HANDLERS + PAGE, HANDLERS + PAGE, CODE)


@pytest.mark.parametrize("change", [
    without_way,
    at_the_edge,
    too_early,
    lambda guest: guest.tables.map(HANDLERS, HANDLERS, DATA),
    lambda guest: guest.tables.map(HANDLERS, HANDLERS, CODE | US),
    lambda guest: guest.tables.map(HANDLERS, HANDLERS, CODE, private=False),
    lambda guest: guest.tables.map(HANDLERS, HANDLERS, CODE & ~P),
    lambda guest: guest.tables.map(HANDLERS, 1 << 40, CODE),
    lambda guest: guest.tables.entries.update({TABLES: guest.tables.entries[TABLES] & ~US | 1 << 7}),
    lambda guest: guest.contents.update({IDT: gate(HANDLERS, present=False) * 256}),
    lambda guest: guest.contents.update({IDT: gate((1 << 50) + HANDLERS) * 256}),
    lambda guest: reached_at(guest, 1),
    lambda guest: reached_at(guest, 2),
])  # fmt: skip
def test_a_kernel_without_a_way_is_refused(change: Callable[[Guest], None]) -> None:
    """Neither what a process may execute nor what the host can write is one."""
    guest = source()
    change(guest)
    vcpu = launched(guest)
    assert refused(arrived(guest, vcpu).vcpu.run()) is End.MH_LANDING_WAY


def test_a_gate_of_which_half_is_mapped_is_none() -> None:
    guest = source()
    guest.contents[UNMAPPED - PAGE] = bytes(PAGE - 8) + gate(HANDLERS)[:8]
    vcpu = launched(guest)
    change = segment("idtr", base=UNMAPPED - 8, limit=15)
    assert refused(arrived(guest, vcpu, change).vcpu.run()) is End.MH_LANDING_WAY


@pytest.mark.parametrize("tss", [TSS, UNMAPPED, UNMAPPED - 8])
def test_a_process_without_a_stack_for_its_kernel_is_refused(tss: int) -> None:
    """Nothing is mapped where the TSS leads, or the TSS is not, or half of what it says."""
    guest = source()
    guest.contents[TSS] = struct.pack("<IQ", 0, 0x9000_0000).ljust(0x68, b"\0")
    vcpu = launched(guest, **IN_PROCESS)
    assert refused(arrived(guest, vcpu, segment("tr", base=tss)).vcpu.run()) is End.MH_LANDING_STACK


def test_what_is_launched_depends_on_where_it_lies() -> None:
    """Nothing of it is guessed at run time; all tables are private."""
    one, other = (Landing(gpa, PARTS["milan"].c_bit).contents for gpa in (AT, AT + (2 << 20)))
    assert len(one) == len(other) < 0x20 * PAGE
    assert one != other


def test_xcr0_goes_on() -> None:
    """Of x87 and SSE; more of it is refused."""
    guest = source()
    vcpu = launched(guest, "xor ecx, ecx\n xgetbv\n hlt", cr4=guest.registers().cr4 | CR4_OSXSAVE)
    target = arrived(guest, vcpu, number("xcr0", 3))
    assert target.vcpu.run() == HALTS
    assert target.guest.inside(target.vcpu).rax == 3
