"""Small SNP guests for tests: code that runs on an SNP vCPU, launched by KVM."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from emulator_tests.machine import guests
from emulator_tests.machine.guests import (
    CODE,
    DATA,
    GDT,
    HANDLERS,
    HEAP,
    HEAP_WORD,
    IDT,
    KERNEL_CS,
    KERNEL_SS,
    PAGE,
    RSP0,
    STACK,
    TABLES,
    TEXT,
    TSS,
    TSS_SELECTOR,
    PageTables,
    assemble,
)
from mh_builder.firmware.snp import PageType
from mh_builder.parts import PARTS
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import Registers, SystemSegment, Table
from mh_emulator.dram.process import UserMemory, pieces
from mh_emulator.kvm import SnpVcpu, SnpVm
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.snp_platform import SnpPlatform

MEMORY = guests.MEMORY
SHARED = guests.SHARED
GHCB = 0x9_0000
"""Shared from the launch on."""
SECRETS = 0x9_1000
FRESH = 0x18_0000
"""Private, not launched: the guest has to validate it."""
REGISTER_GHCB = f"mov ecx, 0xc0010130\n xor edx, edx\n mov eax, {GHCB | 0x12}\n wrmsr\n rep vmmcall\n"
VC, PF = 29, 14


@dataclass(frozen=True)
class Caught:
    """What stopped in a handler."""

    vector: int
    error_code: int
    cr2: int
    rip: int


@dataclass
class SnpGuest:
    """One VM on a machine of its own; change what it consists of, then `launch` it."""

    part: str = "milan"
    seed: int = 1
    hiding: bool = False
    policy: int = DEFAULT_POLICY
    vcpus: int = 1
    platform: SnpPlatform = field(init=False)
    vm: SnpVm = field(init=False)
    memory: UserMemory = field(init=False)
    tables: PageTables = field(init=False)
    contents: dict[int, bytes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.platform = SnpPlatform(PARTS[self.part], 16 << 20, self.seed, hiding=self.hiding)
        self.vm = self.platform.create_vm()
        self.memory = self.platform.memory(MEMORY)
        self.vm.set_user_memory_region(0, 0, MEMORY, self.memory, 0)
        self.vm.enable_exit_hypercall(1 << 12)
        self.tables = PageTables(1 << PARTS[self.part].c_bit)
        for page in (STACK - PAGE, HEAP, HEAP + PAGE, IDT, GDT, TSS, RSP0 - PAGE, SECRETS, FRESH, FRESH + PAGE):
            self.tables.map(page, page, DATA)
        for page in (TEXT, TEXT + PAGE, HANDLERS):
            self.tables.map(page, page, CODE)
        for page in range(0, MEMORY, PAGE):
            self.tables.map(SHARED + page, page, DATA, private=False)
        self.contents = {
            HANDLERS: b"\xf4" * 256,
            IDT: b"".join(guests.gate(HANDLERS + vector) for vector in range(256)),
            GDT: guests.descriptors(),
            TSS: guests.tss(),
            HEAP: struct.pack("<Q", HEAP_WORD) * (PAGE // 8),
            HEAP + PAGE: b"",
            STACK - PAGE: b"",
            RSP0 - PAGE: b"",
            TEXT + PAGE: b"",
        }

    def code_at(self, address: int, text: str) -> None:
        """Launch this code there too."""
        self.contents[address] = assemble(text)

    def launch(self, text: str = "hlt", **registers: object) -> SnpVcpu:
        """Launch what there is, and return the first vCPU, which stands at TEXT."""
        self.contents.setdefault(TEXT, assemble(text))
        for address, data in self.contents.items():
            self.memory.write_raw(address, data)
        for address, entry in self.tables.entries.items():
            self.memory.write_raw(address, struct.pack("<Q", entry))
        self.vm.sev_init2()
        self.vm.set_memory_attributes(0, MEMORY, private=True)
        self.vm.set_memory_attributes(GHCB, PAGE, private=False)
        made = [self.vm.create_vcpu() for _ in range(self.vcpus)]
        for vcpu in made:
            vcpu.set_registers(self.registers(**registers))
        self.vm.snp_launch_start(self.policy)
        pages = {address & -PAGE for address in (*self.contents, *self.tables.entries)}
        for page in sorted(pages):
            self.vm.snp_launch_update(page, self.memory, page, PAGE)
        self.vm.snp_launch_update(SECRETS, self.memory, SECRETS, PAGE, PageType.SECRETS)
        self.vm.snp_launch_finish()
        return made[0]

    def registers(self, **changes: object) -> Registers:
        return (
            Registers.long_mode(TEXT, STACK, TABLES | self.tables.c_mask)
            .with_changes(
                cs=KERNEL_CS,
                ss=KERNEL_SS,
                gdtr=Table(GDT, 0x3F),
                idtr=Table(IDT, 0xFFF),
                tr=SystemSegment(TSS_SELECTOR, TSS, 0x67, 0x8B00),
            )
            .with_changes(**changes)
        )

    def inside(self, vcpu: SnpVcpu) -> Registers:
        """The registers, as only the holder of the memory key reads them."""
        assert vcpu.vmsa_spa is not None
        return vmsa.load(self.platform.dram.read_private(self.vm.asid, vcpu.vmsa_spa, PAGE))

    def private(self, gpa: int, size: int = 8) -> bytes:
        """Guest memory as the guest sees it."""
        dram, asid = self.platform.dram, self.vm.asid
        return b"".join(dram.read_private(asid, self.spa(start), length) for start, length in pieces(gpa, size))

    def spa(self, gpa: int) -> int:
        """Where the guest's page is."""
        spa = self.vm.private_spa(gpa)
        assert spa is not None
        return spa

    def halted(self, vcpu: SnpVcpu) -> Registers:
        """Run to a HLT that is not a handler's, and change pages as the guest asks."""
        stop = self.run(vcpu)
        assert stop == Exit(Reason.HLT), stop
        state = self.inside(vcpu)
        assert not HANDLERS <= state.rip < HANDLERS + PAGE, f"exception {state.rip - 1 - HANDLERS}"
        return state

    def run(self, vcpu: SnpVcpu) -> Exit:
        """Run, and change pages as the guest asks."""
        stop = vcpu.run()
        while stop.reason is Reason.HYPERCALL:
            gpa, pages, attributes = stop.arguments
            self.vm.set_memory_attributes(gpa, pages * PAGE, private=bool(attributes & 1 << 4))
            stop = vcpu.run()
        return stop

    def caught(self, vcpu: SnpVcpu) -> Caught:
        """Run until a handler halts, and read its frame."""
        assert self.run(vcpu) == Exit(Reason.HLT)
        state = self.inside(vcpu)
        vector = state.rip - 1 - HANDLERS
        assert 0 <= vector < 256, f"halted at {state.rip:#x}, not in a handler"
        error_code, rip = struct.unpack("<QQ", self.private(state.rsp, 16))
        return Caught(vector, error_code, state.cr2, rip)


PVALIDATE, RMPADJUST = ".byte 0xf2, 0x0f, 0x01, 0xff\n", ".byte 0xf3, 0x0f, 0x01, 0xfe\n"


def pvalidate(va: int, *, valid: int = 1, size: int = 0) -> str:
    """Code that leaves EAX, and CF in BL."""
    return f"mov rax, {va}\n mov ecx, {size}\n mov edx, {valid}\n {PVALIDATE} setc bl\n"


def rmpadjust(va: int, vmpl: int, perms: int, *, vmsa: int = 0, size: int = 0) -> str:
    """Code that leaves EAX."""
    return f"mov rax, {va}\n mov ecx, {size}\n mov edx, {vmpl | perms << 8 | vmsa << 16}\n {RMPADJUST}"


EXIT_CODE, INFO_1, INFO_2, SCRATCH, RAX, BITMAP = 0x390, 0x398, 0x3A0, 0x3A8, 0x1F8, 0x3F0
GHCB_AT = SHARED + GHCB


def call(code: int, info_1: int = 0, info_2: int = 0, **fields: int) -> str:
    """Code that makes a request through the GHCB, which is registered already."""
    values = {EXIT_CODE: code, INFO_1: info_1, INFO_2: info_2}
    values |= {{"rax": RAX, "scratch": SCRATCH}[name]: value for name, value in fields.items()}
    bitmap = 0
    for offset in values:
        bitmap |= 1 << offset // 8
    words = values | {BITMAP: bitmap & (1 << 64) - 1, BITMAP + 8: bitmap >> 64}
    stores = "".join(f"mov rax, {value}\n mov [rdi + {offset}], rax\n" for offset, value in words.items())
    select = f"mov ecx, 0xc0010130\n xor edx, edx\n mov eax, {GHCB}\n wrmsr\n"
    return f"mov rdi, {GHCB_AT}\n {stores} {select} rep vmmcall\n"


def answer(guest: SnpGuest) -> tuple[int, int]:
    page = guest.memory.read_raw(GHCB, PAGE)
    return struct.unpack_from("<QQ", page, INFO_1)


def msr(value: int) -> str:
    """Code that makes a request in the MSR; the answer is in RAX, its upper half in RDX."""
    return (
        f"mov ecx, 0xc0010130\n mov edx, {value >> 32}\n mov eax, {value & 0xFFFF_FFFF}\n wrmsr\n rep vmmcall\n rdmsr\n"
    )
