"""Instructions that the model executes itself, where the engine would not do what hardware does."""

from __future__ import annotations

from unicorn import x86_const

from mh_emulator.cpu import rdrand
from mh_emulator.cpu.engine import MSR_EFER, Engine
from mh_emulator.cpu.linear import Linear
from mh_emulator.cpu.locked import CF, FLAGS, ZF, CompareExchange, Exchange, Locked, decode, flags_of_comparison
from mh_emulator.cpu.mmu import VECTOR_GP, VECTOR_UD, Access, GuestFault, Mmu, Mode
from mh_emulator.cpu.msr import BadMsrError, Msrs
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.cpu.registers import EFER_SCE, RFLAGS_RF, Segments
from mh_emulator.cpu.tlb import Tlb

_MASK32 = 0xFFFF_FFFF
_RFLAGS, _RIP = x86_const.UC_X86_REG_RFLAGS, x86_const.UC_X86_REG_RIP
_STAR_SELECTOR = 32
"""In STAR, of the code segment that SYSCALL enters; that of the stack follows."""


class Microcode:
    """The microcode of one CPU; its methods raise `GuestFault`, having changed nothing, and leave RIP alone."""

    def __init__(self, engine: Engine, mmu: Mmu, linear: Linear, msrs: Msrs, tlb: Tlb) -> None:
        self._engine = engine
        self._mmu = mmu
        self._linear = linear
        self._msrs = msrs
        self._tlb = tlb

    def locked(self, code: bytes, rip: int) -> int:
        """Do the locked instruction at the start of `code`; return its length, or raise `NotEmulatedError`."""
        found = decode(code, rip, self._engine.read_gpr)
        mode = self._linear.mode()
        before = int.from_bytes(self._mmu.read(found.address, found.size, mode, Access.WRITE), "little")
        match found:
            case CompareExchange():
                self._compare_exchange(found, before, mode)
            case Exchange():
                self._store(found, self._engine.read_gpr(found.register), mode)
                self._engine.write_gpr(found.register, before)
        return found.length

    def rdrand(self, code: bytes, generator: Generator) -> None:
        """RDRAND or RDSEED, which `code` is, of a generator that answers."""
        destination, drawn = rdrand.decode(code), generator.next()
        if destination is None:
            raise ValueError(f"{code.hex(' ')} is no RDRAND")
        value = drawn.value % (1 << 8 * destination.size)
        if destination.size == 2:
            value |= self._engine.read_gpr(destination.register) & ~0xFFFF
        self._engine.write_gpr(destination.register, value)
        flags = self._engine.read(_RFLAGS) & ~FLAGS
        self._engine.write(_RFLAGS, flags | (CF if drawn.carry else 0))

    def rdtsc(self, count: int) -> None:
        """RDTSC that does not leave the guest."""
        self._engine.write_gpr("rax", count & _MASK32)
        self._engine.write_gpr("rdx", count >> 32)

    def syscall(self, length: int) -> None:
        """SYSCALL, behind which RIP is already. Source: AMD64 APM volume 3, SYSCALL."""
        before = self._engine.get_registers()
        if not before.efer & EFER_SCE or not before.is_64_bit:
            self._engine.write(_RIP, before.rip - length)
            raise GuestFault(VECTOR_UD, 0)
        selector = before.star >> _STAR_SELECTOR & 0xFFFC
        self._engine.write_gpr("rcx", before.rip)
        self._engine.write_gpr("r11", before.rflags)
        flat = before.hidden._replace(cs=Segments().cs, ss=Segments().ss)
        rflags = before.rflags & ~(before.sfmask | RFLAGS_RF)
        after = before.with_changes(rip=before.lstar, cs=selector, ss=selector + 8, hidden=flat, rflags=rflags)
        self._engine.enter_handler(after)

    def read_msr(self, index: int) -> None:
        """RDMSR of one that is direct."""
        value = self._msrs.read(index)
        self._engine.write_gpr("rax", value & _MASK32)
        self._engine.write_gpr("rdx", value >> 32)

    def is_direct(self, index: int) -> bool:
        """Whether the guest reads and writes that MSR without an exit."""
        return self._msrs.is_direct(index)

    def write_msr(self, index: int) -> None:
        """WRMSR of one that is direct."""
        value = (self._engine.read_gpr("rdx") & _MASK32) << 32 | self._engine.read_gpr("rax") & _MASK32
        try:
            self._msrs.write(index, value)
        except BadMsrError:
            raise GuestFault(VECTOR_GP, 0) from None
        if index == MSR_EFER:
            self._tlb.flush_translations()

    def _compare_exchange(self, found: CompareExchange, before: int, mode: Mode) -> None:
        flags = flags_of_comparison(self._engine.read_gpr("rax") % (1 << 8 * found.size), before, found.size)
        if flags & ZF:
            self._store(found, found.replacement, mode)
        else:
            self._engine.write_gpr("rax", before)
        self._engine.write(_RFLAGS, self._engine.read(_RFLAGS) & ~FLAGS | flags)

    def _store(self, place: Locked, value: int, mode: Mode) -> None:
        self._mmu.write(place.address, (value % (1 << 8 * place.size)).to_bytes(place.size, "little"), mode)
