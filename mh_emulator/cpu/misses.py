"""What an access that the TLB did not let through means: the byte that was wanted, the fault, or the intercept."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.exceptions import Event
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.cpu.linear import Linear
from mh_emulator.cpu.mmu import PF_WRITE, VECTOR_GP, VECTOR_PF, VECTOR_SS, VECTOR_VC, Access, GuestFault, page_of
from mh_emulator.cpu.nested import NoSlotError
from mh_emulator.cpu.operands import LONGEST_INSTRUCTION, Operand, missed
from mh_emulator.cpu.tlb import Missed


class Misses:
    """Misses of one CPU, looked at while the engine stands at the instruction."""

    def __init__(self, engine: Engine, linear: Linear) -> None:
        self._engine = engine
        self._linear = linear

    def fault(self, stop: Missed, fault: GuestFault) -> Event:
        """The exception that comes of it."""
        if fault.vector == VECTOR_PF:
            operand = self._operand(stop)
            # What will be written is read with the intent to write; unicorn just reads.
            intent = PF_WRITE if operand.is_written else 0
            return Event(VECTOR_PF, fault.error_code | intent, operand.address)
        if fault.vector == VECTOR_VC:
            return Event(VECTOR_VC, fault.error_code, self._operand(stop).address)
        on_stack = stop.access is not Access.FETCH and self._operand(stop).on_stack
        return Event(VECTOR_SS if on_stack else VECTOR_GP, 0)

    def outside(self, stop: Missed, missing: NoSlotError) -> Intercept:
        """The nested page fault of an access, or of a table walk, that no slot serves."""
        operand = self._operand(stop)
        is_table_walk = missing.gpa % PAGE_BYTES != 0
        if is_table_walk:
            return Intercept(Code.NPF, gpa=missing.gpa)
        gpa = missing.gpa + operand.address - page_of(stop.va)
        return Intercept(Code.NPF, gpa=gpa, size=operand.size, is_write=stop.access is Access.WRITE)

    def _operand(self, stop: Missed) -> Operand:
        """Return the byte that a miss was about; unicorn tells the page only."""
        registers = self._engine.get_registers()
        page = address = page_of(stop.va)
        if stop.access is Access.FETCH:
            address = max(registers.rip, page)
        else:
            code = self._linear.code(registers.rip, LONGEST_INSTRUCTION)
            found = missed(code, registers, page, by_write=stop.access is Access.WRITE)
            if found is not None:
                return found
        return Operand(address, 0, on_stack=False, is_read=False, is_written=False)
