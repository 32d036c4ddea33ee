"""vCPUs of one machine at once, in threads: they execute at the same time, and agree on memory."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulator_tests.machine.guests import HANDLERS, HEAP, STACK, TEXT, Guest, assemble, run_to_halt
from mh_emulator.cpu.locked import AF, CF, OF, PF, SF, ZF, NotEmulatedError, flags_of_comparison
from mh_emulator.cpu.mmu import PF_PRESENT, PF_WRITE, VECTOR_PF
from mh_emulator.host.watchdog import limited
from mh_emulator.kvm import Vcpu

SECOND = TEXT + 0x800


def two(first: str, second: str, rdi: int = 0) -> tuple[Guest, list[Vcpu]]:
    """A guest with two vCPUs, each with code and a part of the stack's page of its own."""
    guest = Guest()
    code = assemble(first).ljust(SECOND - TEXT, b"\xf4") + assemble(second)
    guest.contents[TEXT] = code
    vcpus = [guest.launch(rdi=rdi)]
    vcpus.append(guest.vm.create_vcpu())
    vcpus[1].set_registers(guest.registers(rip=SECOND, rsp=STACK - 0x400, rdi=rdi))
    return guest, vcpus


def at_once(guest: Guest, vcpus: list[Vcpu], work: Callable[[Vcpu], object] = run_to_halt) -> None:
    with guest.platform.dram.bus.at_once(), ThreadPoolExecutor(len(vcpus)) as pool:
        for done in [pool.submit(work, vcpu) for vcpu in vcpus]:
            done.result()


def test_each_waits_for_the_other() -> None:
    """Neither can end without the other's stores: both execute."""
    turn = """
        mov rsi, {heap}
        mov rcx, 40
    again:
        cmp qword ptr [rsi], {mine}
        jne again
        mov qword ptr [rsi], {other}
        dec rcx
        jnz again
        hlt
    """
    first, second = (turn.format(heap=HEAP, mine=mine, other=1 - mine) for mine in (0, 1))
    guest, vcpus = two(first, second)
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(HEAP), bytes(8))
    at_once(guest, vcpus)
    assert guest.word(HEAP) == 0


COUNT, LOOKS = 60, 30


def counting(width: str, accumulator: str, other: str) -> str:
    return f"""
        mov rsi, {HEAP}
        mov rcx, {COUNT}
    next:
        mov {accumulator}, [rsi + rdi * 8]
    retry:
        lea {other}, [{accumulator} + 1]
        lock cmpxchg {width} ptr [rsi + rdi * 8], {other}
        jne retry
        dec rcx
        jnz next
        hlt
    """


@pytest.mark.parametrize(
    ("width", "accumulator", "other"), [("qword", "rax", "r9"), ("dword", "eax", "edx"), ("dword", "eax", "r10d")]
)
def test_locked_instructions_are_atomic(width: str, accumulator: str, other: str) -> None:
    text = counting(width, accumulator, other)
    guest, vcpus = two(text, text, rdi=3)
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(HEAP + 24), bytes(8))
    at_once(guest, vcpus)
    assert guest.word(HEAP + 24) == 2 * COUNT


def under_a_lock(width: str, register: str, other: str) -> str:
    """An unlocked counter behind a lock that is taken with XCHG."""
    return f"""
        mov rsi, {HEAP}
        mov rcx, {COUNT}
    next:
        mov {register}, 1
    retry:
        lock xchg {width} ptr [rsi + rdi * 8], {register}
        test {register}, {register}
        jnz retry
        mov {other}, [rsi + 64]
        lea {other}, [{other} + 1]
        mov [rsi + 64], {other}
        lock xchg {width} ptr [rsi + rdi * 8], {register}
        dec rcx
        jnz next
        hlt
    """


@pytest.mark.parametrize(("width", "register", "other"), [("qword", "r9", "rax"), ("dword", "ebx", "r10")])
def test_exchange_is_atomic(width: str, register: str, other: str) -> None:
    text = under_a_lock(width, register, other)
    guest, vcpus = two(text, text, rdi=3)
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(HEAP), bytes(80))
    at_once(guest, vcpus)
    assert (guest.word(HEAP + 24), guest.word(HEAP + 64)) == (0, 2 * COUNT)


@pytest.mark.parametrize(
    ("operands", "memory", "register"),
    [
        ("qword ptr [rsi], r11", 0x1122_3344_5566_7788, 0xFFEE_DDCC_BBAA_9988),
        ("dword ptr [rsi], r11d", 0xFFEE_DDCC_5566_7788, 0xBBAA_9988),
        ("dword ptr [rsi + 4], r11d", 0x5566_7788_BBAA_9988, 0xFFEE_DDCC),
    ],
)
def test_exchange_as_the_engine_alone_does_it(operands: str, memory: int, register: int) -> None:
    """Flags and all: with a second vCPU, and without."""
    states = []
    for work_at in (at_once, lambda _, vcpus: run_to_halt(vcpus[0])):
        guest, vcpus = two(f"mov rsi, {HEAP}\ncmp rsi, -1\nlock xchg {operands}\nhlt", "hlt")
        vcpus[0].set_registers(guest.registers(r11=0x1122_3344_5566_7788))
        guest.platform.dram.write_private(guest.vm.asid, guest.spa(HEAP), (0xFFEE_DDCC_BBAA_9988).to_bytes(8, "little"))
        work_at(guest, vcpus)
        assert guest.word(HEAP) == memory
        states.append(vcpus[0].get_registers())
    assert states[0] == states[1]
    assert states[0].r11 == register


def test_exchange_where_nothing_may_be_written() -> None:
    """#PF with the intent to write, and the register as it was."""
    guest, vcpus = two(f"mov rsi, {TEXT}\nmov rax, 7\nlock xchg [rsi], rax\nhlt", "hlt")
    at_once(guest, vcpus, lambda vcpu: vcpu.run())
    state = vcpus[0].get_registers()
    assert (state.rip - 1 - HANDLERS, state.cr2, state.rax) == (VECTOR_PF, TEXT, 7)
    assert int.from_bytes(vcpus[0].read_linear(state.rsp, 8), "little") == PF_WRITE | PF_PRESENT


def test_host_takes_a_page_away_while_it_is_used() -> None:
    """The host's look at a page converts it to ciphertext and back, until it has seen it change; no store is lost."""
    text = counting("qword", "rax", "r9").replace("dec rcx", "inc qword ptr [rsi + 64]\ncmp qword ptr [rsi + 128], 0")
    guest, vcpus = two(text.replace("jnz next", "je next"), "hlt", rdi=0)
    dram, asid = guest.platform.dram, guest.vm.asid
    dram.write_private(asid, guest.spa(HEAP), bytes(136))
    seen: set[bytes] = set()
    with dram.bus.at_once():
        thread = threading.Thread(target=run_to_halt, args=(vcpus[0],))
        thread.start()
        while thread.is_alive() and len(seen) < LOOKS:
            seen.add(guest.memory.read_raw(HEAP, 16))
        dram.write_private(asid, guest.spa(HEAP + 128), b"\1")
        thread.join()
    assert guest.word(HEAP) == guest.word(HEAP + 64) >= LOOKS - 1
    assert len(seen) == LOOKS


@pytest.mark.parametrize(
    "text",
    [
        *("inc qword ptr [rsi]", "xchg word ptr [rsi], ax", "xchg byte ptr [rsi], al"),
        *("xchg qword ptr gs:[0], rax", "bts qword ptr [rsi], 0"),
    ],
)
def test_other_locked_instructions_are_refused_and_not_executed_wrongly(text: str) -> None:
    guest, vcpus = two(f"mov rsi, {HEAP}\nlock {text}\nhlt", "hlt")
    with pytest.raises(NotEmulatedError, match=f"'lock {re.escape(text)}' while several vCPUs run$"):
        at_once(guest, vcpus)


def test_endless_loop_is_left_when_its_time_is_over() -> None:
    _, vcpus = two("again: jmp again", "hlt")
    with limited(0.3, vcpus[0].kick):
        assert vcpus[0].run().reason.value == "limit"


@pytest.mark.parametrize(
    ("first", "second", "size", "flags"),
    [
        (5, 5, 8, ZF | PF),
        (0, 1, 8, CF | SF | AF | PF),
        (0x8000_0000, 1, 4, OF | AF | PF),
        (0x7FFF_FFFF_FFFF_FFFF, (1 << 64) - 1, 8, CF | OF | SF | PF),
        (3, 1, 4, 0),
    ],
)
def test_flags_of_a_comparison(first: int, second: int, size: int, flags: int) -> None:
    """Against the engine's own CMP."""
    wide = "rax, rbx" if size == 8 else "eax, ebx"
    vcpu = Guest().launch(f"cmp {wide}\nhlt", rax=first, rbx=second)
    mask = CF | PF | AF | ZF | SF | OF
    assert flags_of_comparison(first, second, size) == run_to_halt(vcpu).rflags & mask == flags
