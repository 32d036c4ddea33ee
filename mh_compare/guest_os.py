"""A hostile kernel in the main VM: it owns its page tables, so every address of its space is its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from mh_abi.image import HelperImage
from mh_builder.asm import assemble_text
from mh_builder.flat_segments import CS, GATE_BYTES, GDT, SS, interrupt_gate
from mh_builder.paging import PAGE_BYTES, Span, Tables
from mh_builder.save_area import OFFSETS
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET
from mh_compare.outcome import INSTRUCTIONS, Ended, no_slot, refused
from mh_emulator.cpu.registers import Registers, Table
from mh_emulator.host.machine import Machine
from mh_emulator.host.topology import FOUR_GIB
from mh_emulator.kvm.exits import Exit, Reason

DATA = FOUR_GIB
"""GPA and virtual address of a page of its own, and of its stack; its other pages follow."""

_CODE, _SHARED, _SYSTEM, _TABLES = (DATA + number * PAGE_BYTES for number in range(1, 5))

_HANDLER = 0x800
"""Of #VC, in its page of code: it leaves the error code in the last word of `DATA`."""

_IDT_OFFSET = 0x40
_VECTOR_VC = 29
_NESTED_FAULT = 0x400
"""As an error code of #VC."""

_MSR_GHCB = 0xC001_0130
# GHCB specification (AMD 56421), table 3.
_GHCB = {"code": 0x390, "info1": 0x398, "info2": 0x3A0, "bitmap": 0x3F0, "version": 0xFFA}
_EXIT_MSR = 0x7C


@cache
def assemble(text: str) -> bytes:
    """Code at no particular address."""
    return assemble_text(text, "guest").sections[0].data


def registers(c_bit: int) -> Registers:
    """How its vCPU begins: under SEV-ES the owner measures that, and nothing is set later."""
    state = Registers.long_mode(_CODE, DATA + PAGE_BYTES - 8, _TABLES | 1 << c_bit)
    return state.with_changes(
        cs=CS,
        ss=SS,
        gdtr=Table(_SYSTEM, len(GDT) - 1),
        idtr=Table(_SYSTEM + _IDT_OFFSET, (_VECTOR_VC + 1) * 16 - 1),
    )


def read_word(address: int) -> str:
    """Code that copies a word to `DATA` and halts."""
    return f"mov rsi, {address:#x}\n mov rdi, {DATA:#x}\n mov rax, [rsi]\n mov [rdi], rax\n hlt"


@dataclass(frozen=True)
class Kernel:
    """A kernel that maps the pages at `pages`, and a helper at the helper's own virtual addresses, with every right."""

    image: HelperImage
    helper: int
    """GPA at which it takes the helper to be."""
    c_bit: int
    pages: frozenset[int] = frozenset({0, DATA})

    def memory(self, text: str, data: bytes = b"") -> list[tuple[int, bytes]]:
        """(GPA, bytes) of all that it needs to run code, with `data` at `DATA`."""
        vc = assemble(f"pop rax\n mov rdi, {DATA + PAGE_BYTES - 8:#x}\n mov [rdi], rax\n hlt")
        pieces = (
            (DATA, data),
            (_CODE, assemble(text).ljust(_HANDLER, b"\xcc") + vc),
            (_SYSTEM, _system()),
            (_TABLES, self._tables().dumps(_TABLES, 1 << self.c_bit)),
        )
        return [(gpa, piece + bytes(-len(piece) % PAGE_BYTES or PAGE_BYTES * (not piece))) for gpa, piece in pieces]

    def _tables(self) -> Tables:
        image = self.image
        tables = Tables(0)
        for page in sorted(self.pages | {_SYSTEM}):
            tables.map(Span(page, page, PAGE_BYTES, writable=True, executable=False, private=True))
        tables.map(Span(_CODE, _CODE, PAGE_BYTES, writable=False, executable=True, private=True))
        tables.map(Span(_SHARED, _SHARED, PAGE_BYTES, writable=True, executable=False, private=False))
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


class GuestOs:
    """The kernel of the guest on `machine`, which takes the helper to be where the main VM has it.

    It maps the first page of RAM, and the helper, private and shared as the helper does. A helper that the main VM has
    nowhere is looked for where the mirror has it.
    """

    def __init__(self, machine: Machine, plugged: int = 0) -> None:
        """Also map the page of GPA `plugged`."""
        self._machine = machine
        helper = machine.base if machine.helper.home is None else machine.helper.home
        self._kernel = Kernel(machine.helper, helper, machine.platform.part.c_bit, frozenset({0, DATA, plugged}))

    def run(self, text: str, data: bytes = b"") -> bytes:
        """Run code with `data` at `DATA` until it halts; return the page that it has there then.

        Raises `Ended` where it needs memory that it has not.
        """
        self.begin(text, data)
        exit_ = self.go_on()
        if exit_.reason is Reason.MMIO:
            no_slot(exit_)
        if exit_ != Exit(Reason.HLT):
            raise AssertionError(f"the guest's kernel left with {exit_}")
        page = self.data()
        if self._machine.es and int.from_bytes(page[-8:], "little") == _NESTED_FAULT:
            raise Ended(refused("no memory slot: the guest's kernel takes #VC"))
        return page

    def begin(self, text: str, data: bytes = b"") -> None:
        """Put the code into memory, and the vCPU at its start: under SEV-ES it is there, once."""
        for gpa, piece in self._kernel.memory(text, data):
            self._write(gpa, piece)
        if not self._machine.es:
            self._machine.vcpu.set_registers(registers(self._machine.platform.part.c_bit))

    def go_on(self) -> Exit:
        """Run until the host has something to do that is no MSR."""
        exit_ = self._machine.run_guest(INSTRUCTIONS)
        while exit_.reason is Reason.MSR:
            exit_ = self._machine.run_guest(INSTRUCTIONS)
        return exit_

    def data(self) -> bytes:
        """What its page at `DATA` holds."""
        return self._machine.read_guest(self._machine.placement.topology.ram_addr(DATA))

    def write_msr(self, number: int, value: int) -> str:
        """Code that writes an MSR which the host answers; under SEV-ES it asks for that itself, without #VC."""
        inputs = {"rcx": number, "rax": value & 0xFFFF_FFFF, "rdx": value >> 32}
        if not self._machine.es:
            return _loads(inputs) + "wrmsr\n"
        fields = {OFFSETS[name]: given for name, given in inputs.items()}
        fields |= {OFFSETS["cpl"]: 0, _GHCB["code"]: _EXIT_MSR, _GHCB["info1"]: 1, _GHCB["info2"]: 0}
        bitmap = sum(1 << offset // 8 for offset in fields)
        words = fields | {_GHCB["bitmap"]: bitmap & (1 << 64) - 1, _GHCB["bitmap"] + 8: bitmap >> 64}
        stores = "".join(f"mov rax, {word:#x}\n mov [rdi + {offset:#x}], rax\n" for offset, word in words.items())
        ghcb = _loads({"rcx": _MSR_GHCB, "rax": _SHARED & 0xFFFF_FFFF, "rdx": _SHARED >> 32, "rdi": _SHARED})
        return f"{ghcb}wrmsr\n{stores}mov word ptr [rdi + {_GHCB['version']:#x}], 1\n.byte 0xf3, 0x0f, 0x01, 0xd9\n"

    def _write(self, gpa: int, data: bytes) -> None:
        dram, memory = self._machine.platform.dram, self._machine.memory
        start = self._machine.placement.topology.ram_addr(gpa)
        for at in range(0, len(data), PAGE_BYTES):
            dram.write_private(self._machine.asid, memory.spa(start + at), data[at : at + PAGE_BYTES])


def _system() -> bytes:
    """GDT and IDT."""
    return GDT.ljust(_IDT_OFFSET, b"\0") + bytes(_VECTOR_VC * GATE_BYTES) + interrupt_gate(_CODE + _HANDLER)


def _loads(values: Mapping[str, int]) -> str:
    return "".join(f"mov {register}, {value:#x}\n" for register, value in values.items())
