"""Small guests for tests: page tables, descriptor tables and code, made without the project's builder."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import pytest

from mh_builder.asm import assemble_text
from mh_builder.parts import PARTS
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import CR4_LA57, Registers, SystemSegment, Table
from mh_emulator.dram.process import UserMemory, pieces
from mh_emulator.kvm import EsVcpu, KvmError, Vcpu, Vm, VmType
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.platform import Platform
from mh_emulator.psp.policy import Policy

PAGE = 0x1000
P, RW, US, A, D, NX = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 63
DATA, CODE = P | RW | A | D | NX, P | A | D

MEMORY = 0x20_0000
TABLES = 0x10_0000
"""Guest-physical address of the root table; the others follow."""
TEXT, HANDLERS, STACK, HEAP = 0x1_0000, 0x2_0000, 0x3_8000, 0x4_0000
IDT, GDT, TSS = 0x5_0000, 0x5_1000, 0x5_2000
RSP0, IST1 = 0x6_1000, 0x6_2000
USER_TEXT, USER_STACK, USER_HEAP = 0x7_0000, 0x7_8000, 0x8_0000
SHARED = 0x4000_0000
"""Virtual address of a second view of all memory, without the C-bit."""

KERNEL_CS, KERNEL_SS, USER_SS, USER_CS, TSS_SELECTOR = 0x08, 0x10, 0x1B, 0x23, 0x28

HEAP_WORD = 0x1122_3344_5566_7788


@dataclass(frozen=True)
class Fault:
    """What a handler finds: the frame that was pushed, and CR2."""

    vector: int
    error_code: int | None
    rip: int
    cs: int
    rflags: int
    rsp: int
    ss: int
    cr2: int
    handler: Registers


class PageTables:
    """Tables in a dictionary of quadwords by guest-physical address."""

    def __init__(self, c_mask: int, levels: int = 4) -> None:
        self.c_mask = c_mask
        self.levels = levels
        self.entries: dict[int, int] = {}
        self._next = TABLES + PAGE

    def map(self, va: int, gpa: int, flags: int, *, private: bool = True, upper: int = P | RW | US | A) -> None:
        entry = self.entry_address(va, upper)
        self.entries[entry] = gpa | flags | (self.c_mask if private else 0)

    def entry_address(self, va: int, upper: int = P | RW | US | A) -> int:
        """GPA of the lowest entry for `va`; tables are made on the way."""
        table = TABLES
        for shift in (48, 39, 30, 21)[5 - self.levels :]:
            slot = table + 8 * (va >> shift & 511)
            if slot not in self.entries:
                self.entries[slot] = self._next | upper | self.c_mask
                self._next += PAGE
            table = self.entries[slot] & ~self.c_mask & 0xF_FFFF_FFFF_F000
        return table + 8 * (va >> 12 & 511)


@dataclass
class Guest:
    """One VM on a platform of its own; change what it consists of, then `launch` it."""

    part: str = "milan"
    encrypted: bool = True
    es: bool = False
    levels: int = 4
    policy: int = 0
    seed: int = 1
    platform: Platform = field(init=False)
    vm: Vm = field(init=False)
    memory: UserMemory = field(init=False)
    tables: PageTables = field(init=False)
    contents: dict[int, bytes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.platform = Platform(PARTS[self.part], 64 << 20, self.seed)
        self.vm = self.platform.create_vm(VmType.SEV_ES if self.es else VmType.DEFAULT)
        self.memory = self.platform.memory(MEMORY)
        self.vm.set_user_memory_region(0, 0, MEMORY, self.memory, 0)
        self.tables = PageTables(1 << PARTS[self.part].c_bit if self.encrypted else 0, self.levels)
        for page in (STACK - PAGE, HEAP, HEAP + PAGE, IDT, GDT, TSS, RSP0 - PAGE, IST1 - PAGE):
            self.tables.map(page, page, DATA)
        for page in (TEXT, TEXT + PAGE, HANDLERS):
            self.tables.map(page, page, CODE)
        self.tables.map(USER_TEXT, USER_TEXT, CODE | US)
        for page in (USER_STACK - PAGE, USER_HEAP):
            self.tables.map(page, page, DATA | US)
        for page in range(0, MEMORY, PAGE):
            self.tables.map(SHARED + page, page, DATA, private=False)
        self.contents = {
            HANDLERS: b"\xf4" * 256,
            IDT: b"".join(gate(HANDLERS + vector) for vector in range(256)),
            GDT: descriptors(),
            TSS: tss(),
            HEAP: struct.pack("<Q", HEAP_WORD) * (PAGE // 8),
        }

    @property
    def cr3(self) -> int:
        return TABLES | self.tables.c_mask

    def code(self, address: int, text: str) -> None:
        self.contents[address] = assemble(text)

    def patch(self, address: int, data: bytes) -> None:
        """Change bytes of what was laid down at some lower address."""
        start = max(base for base in self.contents if base <= address)
        whole = bytearray(self.contents[start].ljust(address - start + len(data), b"\0"))
        whole[address - start : address - start + len(data)] = data
        self.contents[start] = bytes(whole)

    def launch(self, text: str = "hlt", **registers: object) -> Vcpu:
        """Put everything into memory, encrypt it, and start a vCPU at TEXT."""
        self.contents.setdefault(TEXT, assemble(text))
        for address, data in self.contents.items():
            self.memory.write_raw(address, data)
        for address, entry in self.tables.entries.items():
            self.memory.write_raw(address, struct.pack("<Q", entry))
        if self.es:
            self.vm.sev_init2()
        elif self.encrypted:
            self.vm.sev_init()
        vcpu = self.vm.create_vcpu()
        vcpu.set_registers(self.registers(**registers))
        if self.encrypted:
            self.vm.sev_launch_start(self.policy | (Policy.ES if self.es else 0))
            self.vm.sev_launch_update_data(self.memory, 0, MEMORY)
            if self.es:
                self.vm.sev_launch_update_vmsa()
            self.vm.sev_launch_measure()
            self.vm.sev_launch_finish()
        return vcpu

    def inside(self, vcpu: Vcpu) -> Registers:
        """The registers of an SEV-ES vCPU, as only the holder of the memory key reads them."""
        assert isinstance(vcpu, EsVcpu)
        return vmsa.load(self.platform.dram.read_private(self.vm.asid, vcpu.vmsa.spa(0), PAGE))

    def registers(self, **changes: object) -> Registers:
        state = Registers.long_mode(TEXT, STACK, self.cr3).with_changes(
            cs=KERNEL_CS,
            ss=KERNEL_SS,
            gdtr=Table(GDT, 0x3F),
            idtr=Table(IDT, 0xFFF),
            tr=SystemSegment(TSS_SELECTOR, TSS, 0x67, 0x8B00),
            cr4=Registers.long_mode(0, 0, 0).cr4 | (CR4_LA57 if self.levels == 5 else 0),
        )
        return state.with_changes(**changes)

    def private(self, gpa: int, size: int) -> bytes:
        """Guest memory as the guest sees it."""
        dram, asid = self.platform.dram, self.vm.asid
        return b"".join(dram.read_private(asid, self.spa(start), length) for start, length in pieces(gpa, size))

    def word(self, gpa: int) -> int:
        return int.from_bytes(self.private(gpa, 8), "little")

    def spa(self, gpa: int) -> int:
        spa = self.vm.spa(gpa)
        assert spa is not None
        return spa


def fails(number: int, ioctl: str) -> AbstractContextManager[pytest.ExceptionInfo[KvmError]]:
    """What an ioctl does that must fail with that errno."""
    return pytest.raises(KvmError, match=f"^{ioctl}: {errno.errorcode[number]}")


def machine(part: str = "milan") -> Platform:
    """A small host."""
    return Platform(PARTS[part], 16 << 20, 1)


def assemble(text: str) -> bytes:
    unit = assemble_text(f".text\n{text}\n", "guest.s")
    return next(section.data for section in unit.sections if section.name == ".text")


def gate(
    handler: int, *, kind: int = 0xE, dpl: int = 0, ist: int = 0, present: bool = True, cs: int = KERNEL_CS
) -> bytes:
    rights = present << 7 | dpl << 5 | kind
    return struct.pack("<HHBBHII", handler & 0xFFFF, cs, ist, rights, handler >> 16 & 0xFFFF, handler >> 32, 0)


def descriptors() -> bytes:
    flat = {
        KERNEL_CS: 0x00AF_9B00_0000_FFFF,
        KERNEL_SS: 0x00CF_9300_0000_FFFF,
        USER_SS & ~3: 0x00CF_F300_0000_FFFF,
        USER_CS & ~3: 0x00AF_FB00_0000_FFFF,
        0x30: 0x00CF_9B00_0000_FFFF,  # 32-bit code
        0x38: 0x00AF_1B00_0000_FFFF,  # code, not present
    }
    table = bytearray(0x40)
    for selector, descriptor in flat.items():
        struct.pack_into("<Q", table, selector, descriptor)
    return bytes(table)


def tss() -> bytes:
    table = bytearray(0x68)
    struct.pack_into("<Q", table, 0x04, RSP0)
    struct.pack_into("<Q", table, 0x24, IST1)
    return bytes(table)


def caught(vcpu: Vcpu, limit: int | None = None) -> Fault:
    """Run until a handler halts, and read its frame."""
    stop = vcpu.run(limit)
    assert stop.reason is Reason.HLT, stop
    state = vcpu.get_registers()
    vector = state.rip - 1 - HANDLERS
    assert 0 <= vector < 256, f"halted at {state.rip:#x}, not in a handler"
    with_code = vector in (8, 10, 11, 12, 13, 14, 17, 21, 29, 30)
    code = int.from_bytes(vcpu.read_linear(state.rsp, 8), "little") if with_code else None
    rip, cs, rflags, rsp, ss = struct.unpack("<5Q", vcpu.read_linear(state.rsp + 8 * with_code, 40))
    return Fault(vector, code, rip, cs, rflags, rsp, ss, state.cr2, state)


def run_to_halt(vcpu: Vcpu) -> Registers:
    """Run to a HLT that is not a handler's."""
    stop = vcpu.run()
    assert stop == Exit(Reason.HLT)
    state = vcpu.get_registers()
    assert not HANDLERS <= state.rip < HANDLERS + PAGE, f"exception {state.rip - 1 - HANDLERS}"
    return state


def gprs(state: Registers, names: str) -> Mapping[str, int]:
    return {name: getattr(state, name) for name in names.split()}
