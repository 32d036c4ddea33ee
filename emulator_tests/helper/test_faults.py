"""Exceptions in the helper: recorded, keys wiped, halted for good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from emulator_tests.helper.conftest import Pair, PairMaker, at_work
from emulator_tests.helper.test_secrets import private_memory
from mh_abi import abi
from mh_builder.image.model import Image
from mh_builder.schemes.space import HELPER_VA, RAM_VA
from mh_emulator.host.ring import HelperStopped, Request

FAULT = abi.mh_ring_state.MH_RING_FAULT
PAGE_FAULT, GENERAL_PROTECTION, INVALID_OPCODE = 14, 13, 6


def fault_of(pair: Pair, **registers: Any) -> abi.mh_fault:
    """Let the host set registers in the middle of work (plain SEV cannot prevent it), and read the fault record."""
    vcpu = at_work(pair.source)
    vcpu.set_registers(replace(vcpu.get_registers(), **registers))
    pair.source.machine.mirror.run()
    header = pair.source.ring.header()
    assert header.state == FAULT
    return header.fault


def test_jump_into_nothing(pair: Pair) -> None:
    fault = fault_of(pair, rip=0xFFFF_9000_0000_0000)
    assert (fault.vector, fault.error_code) == (PAGE_FAULT, 0x10)
    assert fault.rip == fault.cr2 == 0xFFFF_9000_0000_0000


def test_guest_ram_is_not_executable(pair: Pair) -> None:
    page = RAM_VA + pair.pages[1]
    fault = fault_of(pair, rip=page)
    assert (fault.vector, fault.error_code, fault.cr2) == (PAGE_FAULT, 0x11, page)


@pytest.mark.parametrize("pointer", [0, 8, 0x1FF000, "request address"])
@pytest.mark.parametrize("access", ["read", "write", "fetch"])
def test_a_wiped_pointer_reaches_no_ram(
    make_pair: PairMaker, images: dict[str, Image], scheme: str, access: str, pointer: int | str
) -> None:
    """Nor does a request address without the address of the window; whoever forgets it meets the tables."""
    pair, image = make_pair(scheme), images[scheme]
    va = pair.pages[-1] if isinstance(pointer, str) else pointer
    error_code, registers = {
        "read": (0x0, {"rip": image.symbol("copy64").value, "rsi": va, "rdi": image.section(".ring").va}),
        "write": (0x2, {"rip": store_byte(image), "rdi": va, "rcx": 1}),
        "fetch": (0x10, {"rip": va}),
    }[access]
    before = ram_of(pair)
    fault = fault_of(pair, **registers)
    assert (fault.vector, fault.error_code, fault.cr2) == (PAGE_FAULT, error_code, va)
    assert ram_of(pair) == before


def ram_of(pair: Pair) -> list[bytes]:
    machine = pair.source.machine
    return [machine.read_guest(page) for page in machine.guest_pages()]


@pytest.mark.parametrize(
    "section", [".header", ".rodata", ".tables", ".bss", ".shared_bitmap", ".vcpu", ".secret", ".stack", ".ring"]
)
def test_only_text_is_executable(pair: Pair, images: dict[str, Image], section: str) -> None:
    va = images["regions"].section(section).va
    fault = fault_of(pair, rip=va)
    assert (fault.vector, fault.error_code, fault.cr2) == (PAGE_FAULT, 0x11, va)


@pytest.mark.parametrize("section", [".header", ".text", ".rodata", ".tables", ".secret"])
def test_read_only_sections_cannot_be_written(pair: Pair, images: dict[str, Image], section: str) -> None:
    """A host that enters at the store of `wipe_session` with its own RDI still meets the tables."""
    image = images["regions"]
    va = image.section(section).va
    fault = fault_of(pair, rip=store_byte(image), rdi=va, rcx=1)
    assert (fault.vector, fault.error_code, fault.cr2) == (PAGE_FAULT, 0x3, va)


def store_byte(image: Image) -> int:
    """Where the `rep stosb` of `wipe_session` is."""
    wipe = image.symbol("wipe_session").value
    return next(at for at in range(wipe, wipe + 0x40) if code_at(image, at, 2) == b"\xf3\xaa")


def code_at(image: Image, va: int, size: int) -> bytes:
    return image.data[va - HELPER_VA : va - HELPER_VA + size]


def test_stack_overflow_meets_the_guard_page(pair: Pair, images: dict[str, Image]) -> None:
    """The next call pushes below the stack; the fault is delivered on a stack of its own."""
    bottom = images["regions"].section(".stack").va
    vcpu = pair.source.machine.mirror.vcpu
    vcpu.set_registers(replace(vcpu.get_registers(), rsp=bottom))
    with pytest.raises(HelperStopped, match=f"MH_RING_FAULT, vector 14, error code 0x2, .*CR2 {bottom - 8:#x}$"):
        pair.source.ring.serve([Request(abi.mh_op.MH_OP_ABORT)])


def test_non_canonical_stack(pair: Pair, images: dict[str, Image]) -> None:
    fault = fault_of(pair, rip=images["regions"].symbol("wipe_session").value, rsp=1 << 60)
    assert fault.vector in (12, GENERAL_PROTECTION)


def test_invalid_opcode(pair: Pair, images: dict[str, Image]) -> None:
    """Between two objects there are breakpoints, and nothing else to run into."""
    image = images["regions"]
    text = image.section(".text")
    start = text.offset
    gap = image.data.index(b"\xcc\xcc", start, start + text.size)
    fault = fault_of(pair, rip=HELPER_VA + gap)
    assert (fault.vector, fault.error_code, fault.rip) == (3, 0, HELPER_VA + gap + 1)


@pytest.mark.parametrize("halted", ["idle", "stopped"])
def test_a_halted_helper_has_no_handler(pair: Pair, halted: str) -> None:
    """Block and stacks may be another vCPU's by then: an exception shuts the vCPU down, and memory stays as it is."""
    machine = pair.source.machine
    if halted == "stopped":
        fault_of(pair, rip=0x1000)
    before = private_memory(pair.source), pair.source.ring.read(0, 0x1000)
    vcpu = machine.mirror.vcpu
    vcpu.set_registers(replace(vcpu.get_registers(), rip=0x1000))
    with pytest.raises(HelperStopped, match=r"^helper left with Exit\(reason=<Reason.SHUTDOWN: 'shutdown'>"):
        machine.mirror.run()
    assert (private_memory(pair.source), pair.source.ring.read(0, 0x1000)) == before


def test_after_a_fault_nothing_is_served(pair: Pair) -> None:
    fault_of(pair, rip=0x1000)
    with pytest.raises(HelperStopped, match="MH_RING_FAULT, vector 14, error code 0x10, RIP 0x1000, CR2 0x1000"):
        pair.source.ring.serve([Request(abi.mh_op.MH_OP_HELLO)])


def test_fault_record_shows_no_register(pair: Pair) -> None:
    fault_of(pair, rip=0x1000, rbx=0x1122334455667788, r15=0x99AABBCCDDEEFF00)
    state = pair.source.machine.mirror.vcpu.get_registers()
    general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16)))
    assert {getattr(state, name) for name in general} == {0}
