"""The way of an exception or interrupt through the guest's IDT in long mode.

Source: AMD64 APM volume 2, sections 8.9 (long-mode interrupt control transfers), 12.2.5 (64-bit TSS).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from mh_builder.paging import is_canonical
from mh_emulator.cpu.descriptors import LONG, read_descriptor
from mh_emulator.cpu.mmu import (
    VECTOR_GP,
    VECTOR_NP,
    VECTOR_SS,
    VECTOR_TS,
    Access,
    GuestFault,
    Mmu,
    Mode,
)
from mh_emulator.cpu.registers import (
    RFLAGS_IF,
    RFLAGS_NT,
    RFLAGS_RF,
    RFLAGS_TF,
    Registers,
    SystemSegment,
    levels,
)

WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
"""Exceptions that push an error code when the CPU itself raises them: #HV, 28, has none.

Source: AMD64 APM volume 2, section 8.2; Xen, arch/x86/include/asm/x86-defns.h (X86_EXC_HAVE_EC).
"""
_EXTERNAL = 1 << 0
IN_IDT = 1 << 1
"""Of an error code: the fault is of an entry of the IDT."""

_GATE_BYTES = 16
_GATE_INTERRUPT, _GATE_TRAP = 0xE, 0xF
_TSS_RSP0, _TSS_IST1 = 0x04, 0x24


class Origin(Enum):
    """Where an event is from."""

    EXCEPTION = auto()
    INTERRUPT = auto()
    """From outside, INTR or NMI: benign for section 8.2.9, whatever its vector is."""
    INSTRUCTION = auto()
    """INT n, INT3 or INTO: benign too, and the gate's privilege is checked."""


@dataclass(frozen=True, slots=True)
class Event:
    """An exception or an interrupt that waits for delivery."""

    vector: int
    error_code: int | None
    address: int | None = None
    """What CR2 is to be."""
    origin: Origin = Origin.EXCEPTION
    return_rip: int | None = None
    """What is pushed in place of RIP, which is that of the instruction: the address behind it."""

    @property
    def external(self) -> int:
        """EXT, bit 0 of the error code of what fails in its delivery: no instruction asked for it."""
        return 0 if self.origin is Origin.INSTRUCTION else _EXTERNAL


class _Gate(NamedTuple):
    offset: int
    selector: int
    ist: int
    kind: int
    dpl: int
    present: bool


def enter(event: Event, registers: Registers, mmu: Mmu) -> Registers:
    """The state at the first instruction of the handler. Raises `GuestFault` for what fails on the way."""
    external = event.external
    mode = Mode(registers.cr0, registers.cr3, registers.cr4, registers.efer, user=False, alignment_check=False)
    gate = _read_gate(event, registers, mmu, mode)
    old_level = registers.privilege
    code = read_descriptor(gate.selector, registers, mmu, mode, external)
    level = code.enter(old_level, gate.selector & ~3 | external, LONG)
    if gate.ist:
        stack = _tss_stack(registers.tr, _TSS_IST1 + 8 * (gate.ist - 1), mmu, mode, external)
    elif level < old_level:
        stack = _tss_stack(registers.tr, _TSS_RSP0 + 8 * level, mmu, mode, external)
    else:
        stack = registers.rsp
    rip = registers.rip if event.return_rip is None else event.return_rip
    frame = [registers.ss, registers.rsp, registers.rflags, registers.cs, rip]
    if event.error_code is not None:
        frame.append(event.error_code)
    image = struct.pack(f"<{len(frame)}Q", *reversed(frame))
    stack = ((stack & ~0xF) - len(image)) & (1 << 64) - 1
    if not is_canonical(stack, levels(registers.cr4)):
        raise GuestFault(VECTOR_SS, external)
    mmu.write(stack, image, mode._replace(user=level == 3))
    rflags = registers.rflags & ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF)
    if gate.kind == _GATE_INTERRUPT:
        rflags &= ~RFLAGS_IF
    new_ss = level if level < old_level else registers.ss
    cs, hidden = gate.selector & ~3 | level, registers.hidden._replace(cs=code.hidden)
    return registers.with_changes(rip=gate.offset, cs=cs, hidden=hidden, ss=new_ss, rsp=stack, rflags=rflags)


def _read_gate(event: Event, registers: Registers, mmu: Mmu, mode: Mode) -> _Gate:
    in_idt = event.vector << 3 | IN_IDT | event.external
    offset = event.vector * _GATE_BYTES
    if offset + _GATE_BYTES - 1 > registers.idtr.limit:
        raise GuestFault(VECTOR_GP, in_idt)
    low, selector, ist, rights, middle, high = struct.unpack(
        "<HHBBHI4x", mmu.read(registers.idtr.base + offset, _GATE_BYTES, mode)
    )
    gate = _Gate(
        offset=high << 32 | middle << 16 | low,
        selector=selector,
        ist=ist & 7,
        kind=rights & 0x1F,
        dpl=rights >> 5 & 3,
        present=bool(rights & 0x80),
    )
    if gate.kind not in (_GATE_INTERRUPT, _GATE_TRAP) or (
        event.origin is Origin.INSTRUCTION and gate.dpl < registers.privilege
    ):
        raise GuestFault(VECTOR_GP, in_idt)
    if not gate.present:
        raise GuestFault(VECTOR_NP, in_idt)
    return gate


def _tss_stack(tr: SystemSegment, offset: int, mmu: Mmu, mode: Mode, external: int) -> int:
    if offset + 7 > tr.limit:
        raise GuestFault(VECTOR_TS, tr.selector & ~3 | external)
    return int.from_bytes(mmu.read(tr.base + offset, 8, mode, Access.READ), "little")
