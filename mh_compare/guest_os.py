"""A hostile kernel in the main VM: it owns its page tables, so every address of its space is its own."""

from __future__ import annotations

from functools import cache

from mh_builder.asm import assemble_text
from mh_builder.paging import PAGE_BYTES, Span, Tables
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET
from mh_compare.arena import INSTRUCTIONS
from mh_compare.outcome import no_slot
from mh_emulator.exits import Exit, Reason
from mh_emulator.host.machine import Machine
from mh_emulator.host.topology import FOUR_GIB
from mh_emulator.registers import Registers

DATA = FOUR_GIB
"""GPA and virtual address of a page of its own; code and page tables follow."""

_CODE = DATA + PAGE_BYTES
_TABLES = DATA + 2 * PAGE_BYTES


@cache
def assemble(text: str) -> bytes:
    """Code at no particular address."""
    return assemble_text(text, "guest").sections[0].data


class GuestOs:
    """The kernel of the guest on `machine`, which takes the helper to be where the main VM has it.

    It maps the first page of RAM, and the helper at the helper's own virtual addresses, with every right, private
    and shared as the helper does. A helper that the main VM has nowhere is looked for where the mirror has it.
    """

    def __init__(self, machine: Machine, plugged: int = 0) -> None:
        """Also map the page of GPA `plugged`."""
        self._machine = machine
        self._pages = {0, DATA, plugged}
        self.helper = machine.base if machine.helper.home is None else machine.helper.home

    def run(self, text: str, data: bytes = b"") -> Registers:
        """Run code with `data` at `DATA` until it halts; raise `Ended` where it needs memory that it has not."""
        self.begin(text, data)
        leave = self.go_on()
        if leave.reason is Reason.MMIO:
            no_slot(leave)
        if leave != Exit(Reason.HLT):
            raise AssertionError(f"the guest's kernel left with {leave}")
        return self._machine.vcpu.get_registers()

    def begin(self, text: str, data: bytes = b"") -> None:
        """Put the code into memory, and the vCPU at its start."""
        self._write(DATA, data)
        self._write(_CODE, assemble(text))
        self._write(_TABLES, self._tables().dumps(DATA, 1 << self._machine.platform.part.c_bit))
        self._machine.vcpu.set_registers(
            Registers.long_mode(_CODE, DATA + PAGE_BYTES, _TABLES | 1 << self._machine.platform.part.c_bit)
        )

    def go_on(self) -> Exit:
        """Run until the host has something to do that is no MSR."""
        leave = self._machine.run_guest(INSTRUCTIONS)
        while leave.reason is Reason.MSR:
            leave = self._machine.run_guest(INSTRUCTIONS)
        return leave

    def _tables(self) -> Tables:
        image = self._machine.helper
        tables = Tables(_TABLES - DATA)
        for page in sorted(self._pages):
            tables.map(Span(page, page, PAGE_BYTES, writable=True, executable=False, private=True))
        tables.map(Span(_CODE, _CODE, PAGE_BYTES, writable=False, executable=True, private=True))
        tables.map(Span(HELPER_VA, self.helper, image.ring_offset, writable=True, executable=True, private=True))
        ring = Span(
            HELPER_VA + SHARED_OFFSET + image.ring_offset,
            self.helper + image.ring_offset,
            image.memory_bytes - image.ring_offset,
            writable=True,
            executable=False,
            private=False,
        )
        tables.map(ring)
        return tables

    def _write(self, gpa: int, data: bytes) -> None:
        dram, memory = self._machine.platform.dram, self._machine.memory
        start = self._machine.placement.topology.ram_addr(gpa)
        for at in range(0, len(data), PAGE_BYTES):
            dram.write_private(self._machine.asid, memory.spa(start + at), data[at : at + PAGE_BYTES])
