"""Instructions that leave the guest, or that the model executes in the engine's place."""

from __future__ import annotations

from typing import Protocol

from unicorn import x86_const

from mh_emulator.cpu.engine import Control, Engine
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.cpu.linear import Linear
from mh_emulator.cpu.microcode import Microcode
from mh_emulator.cpu.mmu import VECTOR_GP, VECTOR_UD, GuestFault
from mh_emulator.cpu.operands import LONGEST_INSTRUCTION
from mh_emulator.cpu.ownership import LENGTH, Ownership
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.cpu.traps import Trap, Trapped

_RCX, _RDX, _RIP = x86_const.UC_X86_REG_RCX, x86_const.UC_X86_REG_RDX, x86_const.UC_X86_REG_RIP
_VMMCALL = b"\x0f\x01\xd9"
_REPEAT = (b"\xf2", b"\xf3")
_IOPL_SHIFT = 12
_LOWEST_PRIVILEGE = 3
_MASK32 = 0xFFFF_FFFF


class Interpreted(Protocol):
    """What of the VM its instructions depend on."""

    @property
    def es(self) -> bool:
        """Whether registers are encrypted."""

    @property
    def intercepts_tsc(self) -> bool:
        """Whether RDTSC leaves the guest."""

    @property
    def generator(self) -> Generator:
        """What RDRAND draws from."""

    def count(self) -> int:
        """What RDTSC gives where the model has a count of its own."""


class Instructions:
    """Executes instructions of one CPU, at which its engine stands; raises `GuestFault` for what the guest gets."""

    def __init__(
        self, guest: Interpreted, engine: Engine, linear: Linear, microcode: Microcode, ownership: Ownership | None
    ) -> None:
        self._guest = guest
        self._engine = engine
        self._linear = linear
        self._microcode = microcode
        self._ownership = ownership
        """Of an SNP guest."""

    def unknown(self) -> Intercept | None:
        """What unicorn does not know: VMMCALL, with a prefix under SEV-ES VMGEXIT (APM volume 3), and what SNP adds."""
        code = self._linear.code(self._engine.pc(), 4)
        if self._ownership is not None and self._ownership.execute(code):
            self.skip(LENGTH)
            return None
        length = 4 if code[:1] in _REPEAT else 3
        if code[length - 3 : length] != _VMMCALL:
            raise GuestFault(VECTOR_UD, 0)
        if self._guest.es and code[:1] in _REPEAT:
            self.skip(length)
            return Intercept(Code.VMGEXIT, length)
        return Intercept(Code.VMMCALL, length)

    def trapped(self, trapped: Trapped) -> Intercept | None:
        """Execute it, or say with which intercept it leaves the guest."""
        match trapped.trap:
            case Trap.LOCK:
                rip = self._engine.read(_RIP)
                self.skip(self._microcode.locked(self._linear.code(rip, LONGEST_INSTRUCTION), rip))
                return None
            case Trap.RDRAND | Trap.RDSEED:
                code = self._linear.code(self._engine.pc(), trapped.length)
                self._microcode.rdrand(code, self._guest.generator)
                self.skip(trapped.length)
                return None
            case Trap.SYSCALL:
                self._microcode.syscall(trapped.length)
                return None
            case Trap.RDTSC if self._guest.intercepts_tsc:
                return Intercept(Code.RDTSC, trapped.length)
            case Trap.RDTSC:
                self._microcode.rdtsc(self._guest.count())
                self.skip(trapped.length)
                return None
            case _:
                return self._privileged(trapped)

    def skip(self, length: int) -> None:
        """Move RIP behind an instruction of `length` bytes."""
        self._engine.write(_RIP, self._engine.read(_RIP) + length)

    def _privileged(self, trapped: Trapped) -> Intercept | None:
        control = self._engine.control()
        if control.privilege > _lowest(trapped.trap, control):
            raise GuestFault(VECTOR_GP, 0)
        match trapped.trap:
            case Trap.CPUID:
                return Intercept(Code.CPUID, trapped.length)
            case Trap.HLT:
                self.skip(trapped.length)
                self._engine.end_shadow()
                return Intercept(Code.HLT)
            case Trap.IN | Trap.OUT:
                port = self._engine.read(_RDX) & 0xFFFF if trapped.port is None else trapped.port
                return Intercept(Code.IOIO, trapped.length, port, trapped.size, is_write=trapped.trap is Trap.OUT)
            case Trap.STRING:
                return Intercept(Code.IOIO, trapped.length)
            case _:
                return self._access_msr(trapped)

    def _access_msr(self, trapped: Trapped) -> Intercept | None:
        is_write = trapped.trap is Trap.WRMSR
        index = self._engine.read(_RCX) & _MASK32
        if not self._microcode.is_direct(index):
            return Intercept(Code.MSR, trapped.length, is_write=is_write)
        if is_write:
            self._microcode.write_msr(index)
        else:
            self._microcode.read_msr(index)
        self.skip(trapped.length)
        return None


def _lowest(trap: Trap, control: Control) -> int:
    """The lowest privilege, a high number, with which the instruction may be executed."""
    if trap in (Trap.IN, Trap.OUT, Trap.STRING):
        return control.rflags >> _IOPL_SHIFT & 3
    return _LOWEST_PRIVILEGE if trap is Trap.CPUID else 0
