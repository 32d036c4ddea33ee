"""The way of an exception or interrupt through the IDT of protected mode, or through that of real mode.

Source: AMD64 APM volume 2, sections 8.6 (real-mode), 8.7 (legacy protected-mode interrupt control transfers) and 12.2.2
(32-bit TSS). Of gates there are those of 32 bits; a task gate is #GP, as one that is no gate.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mh_emulator.cpu.descriptors import BIG, read_descriptor
from mh_emulator.cpu.exceptions import IN_IDT, Event, Origin
from mh_emulator.cpu.mmu import VECTOR_GP, VECTOR_NP, VECTOR_TS, GuestFault, Mmu, Mode
from mh_emulator.cpu.registers import (
    CR0_PE,
    RFLAGS_AC,
    RFLAGS_IF,
    RFLAGS_NT,
    RFLAGS_RF,
    RFLAGS_TF,
    RFLAGS_VM,
    Registers,
)

_GATE = struct.Struct("<HHxBH")
_INTERRUPT, _TRAP = 0xE, 0xF
_VECTOR = struct.Struct("<HH")
_STACK_OF_LEVEL = struct.Struct("<IHxx")
_ESP0 = 4
_MASK32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class _Gate:
    offset: int
    selector: int
    kind: int


def enter(event: Event, registers: Registers, mmu: Mmu) -> Registers:
    """The state at the first instruction of the handler. Raises `GuestFault` for what fails on the way."""
    mode = Mode(registers.cr0, registers.cr3, registers.cr4, registers.efer, user=False, alignment_check=False)
    if not registers.cr0 & CR0_PE:
        return _enter_real(event, registers, mmu, mode)
    gate = _read_gate(event, registers, mmu, mode)
    code = read_descriptor(gate.selector, registers, mmu, mode, event.external)
    level = code.enter(registers.privilege, gate.selector & ~3 | event.external, BIG)
    eip = registers.rip if event.return_rip is None else event.return_rip
    frame = [registers.rflags & _MASK32, registers.cs, eip & _MASK32]
    stack = registers
    if level < registers.privilege:
        frame = [registers.ss, registers.rsp & _MASK32, *frame]
        stack = _on_inner_stack(level, registers, mmu, mode, event.external)
    if event.error_code is not None:
        frame.append(event.error_code)
    image = struct.pack(f"<{len(frame)}I", *reversed(frame))
    esp = (stack.rsp - len(image)) & _MASK32
    mmu.write((stack.ss_base + esp) & _MASK32, image, mode._replace(user=level == 3))
    rflags = registers.rflags & ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM)
    if gate.kind == _INTERRUPT:
        rflags &= ~RFLAGS_IF
    hidden = stack.hidden._replace(cs=code.hidden)
    cs = gate.selector & ~3 | level
    return stack.with_changes(rip=gate.offset, cs=cs, cs_base=code.base, hidden=hidden, rsp=esp, rflags=rflags)


def _read_gate(event: Event, registers: Registers, mmu: Mmu, mode: Mode) -> _Gate:
    in_idt = event.vector << 3 | IN_IDT | event.external
    offset = event.vector * _GATE.size
    if offset + _GATE.size - 1 > registers.idtr.limit:
        raise GuestFault(VECTOR_GP, in_idt)
    low, selector, rights, high = _GATE.unpack(mmu.read(registers.idtr.base + offset, _GATE.size, mode))
    kind, dpl = rights & 0x1F, rights >> 5 & 3
    is_low = event.origin is Origin.INSTRUCTION and dpl < registers.privilege
    if kind not in (_INTERRUPT, _TRAP) or is_low:
        raise GuestFault(VECTOR_GP, in_idt)
    if not rights & 0x80:
        raise GuestFault(VECTOR_NP, in_idt)
    return _Gate(high << 16 | low, selector, kind)


def _on_inner_stack(level: int, registers: Registers, mmu: Mmu, mode: Mode, external: int) -> Registers:
    """With the stack that the TSS has for that level."""
    offset = _ESP0 + _STACK_OF_LEVEL.size * level
    if offset + _STACK_OF_LEVEL.size - 1 > registers.tr.limit:
        raise GuestFault(VECTOR_TS, registers.tr.selector & ~3 | external)
    esp, selector = _STACK_OF_LEVEL.unpack(mmu.read(registers.tr.base + offset, _STACK_OF_LEVEL.size, mode))
    found = read_descriptor(selector, registers, mmu, mode, external)
    hidden = registers.hidden._replace(ss=found.hidden)
    return registers.with_changes(ss=selector, ss_base=found.base, rsp=esp, hidden=hidden)


def _enter_real(event: Event, registers: Registers, mmu: Mmu, mode: Mode) -> Registers:
    offset = event.vector * _VECTOR.size
    if offset + _VECTOR.size - 1 > registers.idtr.limit:
        raise GuestFault(VECTOR_GP, 0)
    ip, cs = _VECTOR.unpack(mmu.read(registers.idtr.base + offset, _VECTOR.size, mode))
    old = registers.rip if event.return_rip is None else event.return_rip
    image = struct.pack("<3H", old & 0xFFFF, registers.cs, registers.rflags & 0xFFFF)
    sp = (registers.rsp - len(image)) & 0xFFFF
    mmu.write((registers.ss_base + sp) & _MASK32, image, mode)
    rflags = registers.rflags & ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_RF | RFLAGS_AC)
    return registers.with_changes(rip=ip, cs=cs, cs_base=cs << 4, rsp=registers.rsp & ~0xFFFF | sp, rflags=rflags)
