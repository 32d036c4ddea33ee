"""RDRAND of a part that is broken, and RDTSC that the host answers.

Source: AMD64 APM volume 3, RDRAND and RDTSC.
"""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    HEAP,
    PAGE,
    TEXT,
    USER_CS,
    USER_SS,
    USER_STACK,
    USER_TEXT,
    Guest,
    assemble,
    caught,
    run_to_halt,
)
from mh_emulator.cpu.intercepts import Code
from mh_emulator.cpu.locked import AF, CF, OF, PF, SF, ZF
from mh_emulator.cpu.rdrand import FAULTS, Repeating
from mh_emulator.cpu.registers import CR4_TSD, Registers
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason

ALL = (1 << 64) - 1
FLAGS = CF | PF | AF | ZF | SF | OF
KEPT = 0x1122_3344_5566_7788


def again(vcpu: Vcpu) -> Registers:
    vcpu.set_registers(vcpu.get_registers().with_changes(rip=TEXT))
    return run_to_halt(vcpu)


def broken(guest: Guest, name: str) -> Guest:
    guest.platform.generator.fault = FAULTS[name]
    return guest


@pytest.mark.parametrize(
    ("text", "register", "stuck", "nothing"),
    [
        ("rdrand rax", "rax", ALL, 0),
        ("rdrand rdi", "rdi", ALL, 0),
        ("rdrand r11", "r11", ALL, 0),
        ("rdrand ebx", "rbx", 0xFFFF_FFFF, 0),
        ("rdrand r15d", "r15", 0xFFFF_FFFF, 0),
        ("rdrand bp", "rbp", KEPT | 0xFFFF, KEPT & ~0xFFFF),
        ("rdrand r8w", "r8", KEPT | 0xFFFF, KEPT & ~0xFFFF),
    ],
)
def test_every_form(text: str, register: str, stuck: int, nothing: int) -> None:
    """All flags but CF are cleared; CF says whether there is a value, and without one it is zero."""
    for name, value, carry in (("stuck", stuck, CF), ("zero", nothing, CF), ("fails", nothing, 0)):
        vcpu = broken(Guest(), name).launch(f"{text}\n hlt", rflags=2 | FLAGS, **{register: KEPT})
        before = vcpu.get_registers()
        state = run_to_halt(vcpu)
        assert (getattr(state, register), state.rflags & FLAGS) == (value, carry)
        assert state == before.with_changes(rip=state.rip, rflags=state.rflags, **{register: value})


def test_cycle() -> None:
    guest = broken(Guest(), "repeats")
    names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi")
    vcpu = guest.launch("".join(f"rdrand {name}\n" for name in names) + "jnc 1f\n hlt\n1: ud2")
    state = run_to_halt(vcpu)
    values = [getattr(state, name) for name in names]
    assert values[:3] == values[3:]
    assert len(set(values)) == 3
    assert again(vcpu).rax == values[0]


def test_one_platform_breaks_and_another_does_not_and_it_can_be_repaired() -> None:
    """The same vCPU, in between: code that was translated before, and hooks that stay."""
    text = "rdrand rax\n rdrand rbx\n hlt"
    source, target = Guest(), Guest(seed=2)
    vcpus = [source.launch(text), target.launch(text)]
    assert len({value for vcpu in vcpus for value in gpr_pair(run_to_halt(vcpu))}) == 4
    broken(source, "stuck")
    assert gpr_pair(again(vcpus[0])) == (ALL, ALL)
    assert len({ALL, *gpr_pair(again(vcpus[1]))}) == 3
    source.platform.generator.fault = None
    assert len({ALL, *gpr_pair(again(vcpus[0]))}) == 3


def gpr_pair(state: Registers) -> tuple[int, int]:
    return state.rax, state.rbx


@pytest.mark.parametrize("es", [False, True], ids=["sev", "sev-es"])
@pytest.mark.parametrize("split", range(-5, 1))
def test_across_a_page(split: int, *, es: bool) -> None:
    guest = broken(Guest(es=es), "stuck")
    start = PAGE + split
    guest.contents[TEXT] = b"\x90" * start + assemble("rdrand r9w\n hlt")
    vcpu = guest.launch(r9=0)
    assert vcpu.run() == Exit(Reason.HLT)
    assert (guest.inside(vcpu) if es else vcpu.get_registers()).r9 == 0xFFFF


def test_bytes_that_only_look_like_it() -> None:
    """In the middle of another instruction, in one that is RDSEED, and in data."""
    guest = broken(Guest(), "stuck")
    vcpu = guest.launch(f"mov rax, 0xF0C70F48F1C70F66\n rdseed rbx\n mov rcx, [{HEAP}]\n hlt")
    state = run_to_halt(vcpu)
    assert state.rax == 0xF0C7_0F48_F1C7_0F66
    assert state.rbx != ALL


def stamps(vcpu: Vcpu) -> list[int]:
    state = vcpu.get_registers()
    return [getattr(state, name) for name in ("r8", "r9", "r10")]


READ_TSC = "".join(f"rdtsc\n shl rdx, 32\n or rax, rdx\n mov {name}, rax\n" for name in ("r8", "r9", "r10")) + "hlt"


def test_time_stamp_counter_grows() -> None:
    vcpu = Guest().launch(READ_TSC)
    run_to_halt(vcpu)
    first = stamps(vcpu)
    again(vcpu)
    values = first + stamps(vcpu)
    assert values == sorted(set(values))


def test_host_that_answers_the_same_time_every_time() -> None:
    guest = Guest()
    vcpu = guest.launch(READ_TSC)
    run_to_halt(vcpu)
    for count in (0x1234_5678_9ABC_DEF0, 0, ALL):
        guest.vm.tsc = count
        again(vcpu)
        assert stamps(vcpu) == [count] * 3
    guest.vm.tsc = None
    again(vcpu)
    assert len(set(stamps(vcpu))) == 3


def test_under_sev_es_the_guest_is_told() -> None:
    guest = Guest(es=True)
    guest.vm.tsc = 5
    vcpu = guest.launch("nop\n rdtsc\n hlt")
    assert vcpu.run() == Exit(Reason.HLT)
    state = guest.inside(vcpu)
    frame = guest.private(state.rsp, 16)
    assert int.from_bytes(frame[:8], "little") == Code.RDTSC
    assert int.from_bytes(frame[8:], "little") == TEXT + 1


def test_user_code_without_the_right_to_it() -> None:
    guest = Guest()
    guest.vm.tsc = 5
    guest.code(USER_TEXT, "rdtsc\n hlt")
    state = guest.registers()
    fault = caught(guest.launch("", rip=USER_TEXT, cs=USER_CS, ss=USER_SS, rsp=USER_STACK, cr4=state.cr4 | CR4_TSD))
    assert (fault.vector, fault.error_code, fault.rip) == (13, 0, USER_TEXT)


def test_a_guest_whose_run_repeats() -> None:
    """RDRAND and RDSEED of every size; another seed gives others, and so does a fault that comes later."""
    text = "rdrand rax\n jnc 1f\n rdseed rbx\n jnc 1f\n rdrand r8d\n rdseed r9w\n hlt\n1: ud2"
    found = []
    for seed in (1, 1, 2):
        guest = Guest()
        guest.vm.generator = Repeating(seed)
        vcpu = guest.launch(text)
        state = run_to_halt(vcpu)
        found.append((state.rax, state.rbx, state.r8, state.r9))
    assert found[0] == found[1] != found[2]
    assert len({*found[0], *found[2]}) == 8
    assert found[0][2] < 1 << 32
    guest.vm.generator.fault = FAULTS["stuck"]
    assert again(vcpu).rax == ALL
