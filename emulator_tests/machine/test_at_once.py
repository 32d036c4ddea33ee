"""vCPUs of one machine at once, in threads: they execute at the same time, and agree on memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulator_tests.machine.guests import HEAP, STACK, TEXT, Guest, assemble, run_to_halt
from mh_emulator.kvm import Vcpu
from mh_emulator.locked import AF, CF, OF, PF, SF, ZF, NotEmulatedError, flags_of_comparison
from mh_emulator.watchdog import limited

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


COUNT = 60


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


def test_host_takes_a_page_away_while_it_is_used() -> None:
    """The host's look at a page converts it to ciphertext and back, again and again; no store is lost."""
    text = counting("qword", "rax", "r9").replace("dec rcx", "inc qword ptr [rsi + 64]\ndec rcx")
    guest, vcpus = two(text.replace(f"rcx, {COUNT}", "rcx, 300"), "hlt", rdi=0)
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(HEAP), bytes(80))
    seen = set()
    with guest.platform.dram.bus.at_once():
        thread = threading.Thread(target=run_to_halt, args=(vcpus[0],))
        thread.start()
        while thread.is_alive():
            seen.add(guest.memory.read_raw(HEAP, 16))
        thread.join()
    assert guest.word(HEAP) == guest.word(HEAP + 64) == 300
    assert len(seen) > 5


def test_other_locked_instructions_are_refused_and_not_executed_wrongly() -> None:
    guest, vcpus = two(f"mov rsi, {HEAP}\nlock inc qword ptr [rsi]\nhlt", "hlt")
    with pytest.raises(NotEmulatedError, match=r"'lock inc qword ptr \[rsi\]' while several vCPUs run$"):
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
