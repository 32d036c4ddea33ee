"""SYSCALL, for which the engine does nothing, and SYSRET, which it has. Source: AMD64 APM volume 3."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    HANDLERS,
    KERNEL_CS,
    KERNEL_SS,
    STACK,
    TEXT,
    USER_CS,
    USER_SS,
    USER_STACK,
    USER_TEXT,
    Guest,
    caught,
    run_to_halt,
)
from mh_emulator.cpu.registers import EFER_SCE, RFLAGS_IF, Registers

ENTRY = TEXT + 0x100
STAR = KERNEL_CS << 32 | (USER_SS - 8) << 48
SFMASK = RFLAGS_IF | 1
FLAGS = 2 | RFLAGS_IF | 1 << 6 | 1


def user(guest: Guest, text: str, entry: str, **registers: object) -> Registers:
    """Registers of user code, with `entry` behind LSTAR."""
    guest.code(ENTRY, entry)
    guest.code(USER_TEXT, text)
    state = guest.registers(rip=USER_TEXT, cs=USER_CS, ss=USER_SS, rsp=USER_STACK, rflags=FLAGS)
    return state.with_changes(star=STAR, lstar=ENTRY, sfmask=SFMASK, **registers)


def test_the_kernel_is_entered() -> None:
    guest = Guest()
    state = user(guest, "mov rdi, 7\n syscall\n hlt", "hlt", rcx=1, r11=2)
    vcpu = guest.launch()
    vcpu.set_registers(state)
    after = run_to_halt(vcpu)
    assert (after.rip, after.rcx, after.r11) == (ENTRY + 1, USER_TEXT + 9, FLAGS)
    assert (after.cs, after.ss, after.privilege) == (KERNEL_CS, KERNEL_SS, 0)
    assert after.rflags == FLAGS & ~SFMASK
    assert (after.rsp, after.rdi) == (USER_STACK, 7)


def test_there_and_back_many_times() -> None:
    """The kernel's data is not the user's; its stack comes from elsewhere."""
    guest = Guest()
    kernel = (
        f"mov r9, rsp\n mov rsp, {STACK}\n push rax\n inc qword ptr [{STACK - 0x100}]\n pop rax\n mov rsp, r9\n sysretq"
    )
    state = user(guest, "mov ebx, 100\n1: syscall\n dec ebx\n jnz 1b\n ud2", kernel)
    vcpu = guest.launch()
    vcpu.set_registers(state)
    fault = caught(vcpu)
    assert (fault.vector, fault.cs, fault.rflags & RFLAGS_IF) == (6, USER_CS, RFLAGS_IF)
    assert guest.word(STACK - 0x100) == 100


@pytest.mark.parametrize("bits", [0, EFER_SCE])
def test_without_the_right_to_it(bits: int) -> None:
    """EFER.SCE decides, not the privilege: SYSCALL of the kernel enters the kernel."""
    guest = Guest()
    usual = guest.registers()
    guest.code(ENTRY, "hlt")
    vcpu = guest.launch("nop\n syscall")
    vcpu.set_registers(usual.with_changes(efer=usual.efer & ~EFER_SCE | bits, star=STAR, lstar=ENTRY))
    if bits:
        assert run_to_halt(vcpu).rip == ENTRY + 1
    else:
        fault = caught(vcpu)
        assert (fault.vector, fault.rip) == (6, TEXT + 1)
        assert fault.handler.rip == HANDLERS + 7
