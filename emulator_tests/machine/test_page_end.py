"""Instructions that begin at the end of a page: what they are depends on the next page, which may become another."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import CODE, DATA, HEAP, PAGE, RW, TEXT, Guest, assemble, caught, run_to_halt
from mh_emulator.cpu.linear import Linear
from mh_emulator.kvm.exits import Reason

NEXT = TEXT + PAGE
ENTRY = NEXT - 1
FIRST, IMUL, RDMSR = b"\x0f", b"\xaf\xc1\xc3\x90", b"\x32\xc3\x90\x90"
"""The first byte of `imul eax, ecx` and of `rdmsr`, and what follows on the next page, with a `ret`."""
OTHER = 0x9_0000
"""GPA of a page that comes into the place of the next one."""
NO_MSR, EFER = 0x1234_5678, 0xC000_0080
GENERAL_PROTECTION = 13


def guest_with(text: str) -> Guest:
    guest = Guest()
    guest.tables.map(NEXT, NEXT, CODE | RW)
    guest.contents[TEXT] = assemble(text).ljust(PAGE - 1, b"\x90") + FIRST + IMUL
    guest.contents[OTHER] = RDMSR
    return guest


CALL = f"mov rbx, {ENTRY}\n call rbx\n"
PRODUCT = f"mov eax, 5\n mov ecx, 3\n {CALL}"


def test_what_is_none_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, code = list[int](), Linear.code

    def look(linear: Linear, va: int, size: int) -> bytes:
        looks.append(va)
        return code(linear, va, size)

    monkeypatch.setattr(Linear, "code", look)
    vcpu = guest_with(f"mov ebp, 5000\n again: {PRODUCT} dec ebp\n jnz again\n hlt").launch()
    assert run_to_halt(vcpu).rax == 15
    assert 1 <= looks.count(ENTRY) < 10


def test_it_becomes_one_by_a_store() -> None:
    """RDMSR of an MSR that nobody has: #GP, where the engine alone would read zero."""
    store = f"mov dword ptr [rbx + 1], {int.from_bytes(RDMSR, 'little'):#x}\n"
    guest = guest_with(f"{PRODUCT * 2} {store} mov ecx, {EFER}\n {CALL} mov ecx, {NO_MSR}\n {CALL} hlt")
    fault = caught(guest.launch())
    assert (fault.vector, fault.rip, fault.handler.rax) == (GENERAL_PROTECTION, ENTRY, guest.registers().efer)


@pytest.mark.parametrize("before", ["", "imul first", "rdmsr first"])
def test_it_becomes_one_by_another_page(before: str) -> None:
    guest = guest_with("hlt")
    entry = guest.tables.entry_address(NEXT)
    guest.tables.map(entry & -PAGE, entry & -PAGE, DATA)
    pages = {kind: page | CODE | RW | guest.tables.c_mask for kind, page in (("imul", NEXT), ("rdmsr", OTHER))}

    def use(kind: str, msr: int) -> str:
        take = f"mov rax, {pages[kind]:#x}\n mov rdi, {entry:#x}\n mov [rdi], rax\n invlpg [rbx + 1]\n"
        return f"mov rbx, {ENTRY}\n {take} mov eax, 5\n mov ecx, {msr if kind == 'rdmsr' else 3}\n call rbx\n"

    order = {"": (), "imul first": ("imul", "imul"), "rdmsr first": ("rdmsr", "imul", "rdmsr", "imul")}[before]
    text = "".join(use(kind, EFER) for kind in order) + "mov r8, rax\n" + use("rdmsr", NO_MSR) + "hlt"
    guest.contents[TEXT] = assemble(text).ljust(PAGE - 1, b"\x90") + FIRST + IMUL
    fault = caught(guest.launch())
    assert (fault.vector, fault.rip) == (GENERAL_PROTECTION, ENTRY)
    assert not order or fault.handler.r8 == 15


def test_it_becomes_one_by_another_beginning() -> None:
    """The same next page: behind 0F it is PADDSW, behind the prefix 66 an IN of two bytes."""
    guest = Guest()
    entry = guest.tables.entry_address(NEXT)
    guest.tables.map(NEXT, NEXT, CODE)
    guest.tables.map(NEXT + PAGE, NEXT + PAGE, CODE)
    guest.tables.map(entry & -PAGE, entry & -PAGE, DATA)
    call = f"mov rbx, {NEXT + PAGE - 1}\n call rbx\n"
    take = f"mov rax, {OTHER | CODE | guest.tables.c_mask:#x}\n mov rdi, {entry:#x}\n mov [rdi], rax\n"
    guest.contents[TEXT] = assemble(f"{call * 2} {take} invlpg [rbx]\n {call} hlt")
    guest.contents[NEXT] = b"\x0f".rjust(PAGE, b"\x90") + b"\xed\xc1\xc3\xc3"
    guest.contents[OTHER] = b"\x66".rjust(PAGE, b"\x90")
    vcpu = guest.launch(rdx=0x510)
    stop = vcpu.run()
    assert (stop.reason, stop.port, vcpu.get_registers().rip) == (Reason.IO, 0x510, NEXT + PAGE - 1)


def test_it_is_none_any_more() -> None:
    guest = guest_with(
        f"mov ecx, {EFER}\n {CALL} mov r8, rax\n mov rdi, {HEAP}\n mov eax, [rdi]\n mov [rbx + 1], eax\n {PRODUCT} hlt"
    )
    guest.contents[TEXT] = guest.contents[TEXT][:PAGE] + RDMSR
    guest.contents[HEAP] = IMUL
    state = run_to_halt(guest.launch())
    assert (state.r8, state.rax) == (guest.registers().efer, 15)
