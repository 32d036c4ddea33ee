"""Delivery of exceptions and interrupts: what comes of one that fails on its way.

Source: AMD64 APM volume 2, section 8.2.9 (double fault); that #VC is contributory is recollection of section 15.35.5.
"""

from __future__ import annotations

from unicorn import x86_const

from mh_emulator.cpu import exceptions, protected
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.exceptions import WITH_ERROR_CODE, Event, Origin
from mh_emulator.cpu.linear import Linear
from mh_emulator.cpu.mmu import VECTOR_DF, VECTOR_PF, VECTOR_VC, GuestFault, Mmu
from mh_emulator.cpu.registers import EFER_LMA, Registers

VECTOR_BP = 3
_INT3 = b"\xcc"
_RIP = x86_const.UC_X86_REG_RIP
_CONTRIBUTORY = frozenset({0, 10, 11, 12, 13, VECTOR_VC})


class TripleFault(Exception):
    """A fault during the delivery of a double fault."""


def deliver(event: Event, registers: Registers, mmu: Mmu) -> Registers:
    """Return the state at the first instruction of the handler; raise `TripleFault` when there is none."""
    if event.address is not None:
        registers = registers.with_changes(cr2=event.address)
    enter = exceptions.enter if registers.efer & EFER_LMA else protected.enter
    while True:
        try:
            return enter(event, registers, mmu)
        except GuestFault as fault:
            if fault.address is not None:
                registers = registers.with_changes(cr2=fault.address)
            event = _escalate(event, fault)


def raised(engine: Engine, linear: Linear, vector: int) -> Event:
    """The exception of that vector, or software interrupt, that `engine` has kept; RIP is that of its instruction."""
    taken = engine.take_exception()
    if taken.is_software:
        rip = engine.read(_RIP)
        length = 1 if vector == VECTOR_BP and linear.code(engine.pc() - 1, 1) == _INT3 else 2
        engine.write(_RIP, rip - length)
        return Event(vector, None, origin=Origin.INSTRUCTION, return_rip=rip)
    return Event(vector, taken.error_code if vector in WITH_ERROR_CODE else None)


def _escalate(first: Event, second: GuestFault) -> Event:
    if first.origin is Origin.EXCEPTION:
        if first.vector == VECTOR_DF:
            raise TripleFault
        both_contributory = first.vector in _CONTRIBUTORY and second.vector in _CONTRIBUTORY
        after_page_fault = first.vector == VECTOR_PF and (second.vector in _CONTRIBUTORY or second.vector == VECTOR_PF)
        if both_contributory or after_page_fault:
            return Event(VECTOR_DF, 0)
    return Event(second.vector, second.error_code, second.address)
