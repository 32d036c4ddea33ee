"""PVALIDATE and RMPADJUST, with which a guest takes and shares out its pages; the engine knows neither.

Source: bytes and operands from coconut-svsm/svsm, kernel/src/sev/utils.rs, and Linux, arch/x86/include/asm/sev.h. That
they are #GP outside of CPL 0, walk the tables as a read of one byte does, and leave ZF, SF, PF, OF and AF as a
comparison of EAX with 0 would, is recollection of AMD64 APM volume 3.
"""

from __future__ import annotations

from unicorn import x86_const

from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.linear import Linear
from mh_emulator.cpu.locked import CF, FLAGS, flags_of_comparison
from mh_emulator.cpu.mmu import VECTOR_GP, VECTOR_VC, GuestFault, Mmu
from mh_emulator.cpu.nested import NotValidatedError
from mh_emulator.rmp.entry import PageSize, Perm
from mh_emulator.rmp.fault import Fault
from mh_emulator.rmp.instructions import Code, GuestPage, Result, pvalidate, rmpadjust
from mh_emulator.rmp.table import Rmp

PVALIDATE, RMPADJUST = b"\xf2\x0f\x01\xff", b"\xf3\x0f\x01\xfe"
LENGTH = 4

_RFLAGS = x86_const.UC_X86_REG_RFLAGS
_MASK32 = 0xFFFF_FFFF
_VMPL, _PERMS_SHIFT, _VMSA, _RESERVED_SHIFT = 0xFF, 8, 1 << 16, 17


class Ownership:
    """The instructions of one CPU of an SNP guest; they raise `GuestFault` or `NestedFaultError`, and leave RIP."""

    def __init__(self, engine: Engine, mmu: Mmu, linear: Linear, rmp: Rmp) -> None:
        self._engine = engine
        self._mmu = mmu
        self._linear = linear
        self._rmp = rmp

    def execute(self, code: bytes) -> bool:
        """Do what `code` is; False where it is neither instruction."""
        if code not in (PVALIDATE, RMPADJUST):
            return False
        if self._linear.mode().user:
            raise GuestFault(VECTOR_GP, 0)
        try:
            result = self._pvalidate() if code == PVALIDATE else self._rmpadjust()
        except NotValidatedError as found:
            raise GuestFault(VECTOR_VC, found.error_code, self._engine.read_gpr("rax")) from None
        kept = FLAGS if code == PVALIDATE else FLAGS & ~CF
        flags = flags_of_comparison(result.code, 0, 4) | (CF if result.carry else 0)
        self._engine.write_gpr("rax", result.code)
        self._engine.write(_RFLAGS, self._engine.read(_RFLAGS) & ~kept | flags & kept)
        return True

    def _pvalidate(self) -> Result:
        guest = self._mmu.nested.guest
        if guest.vmpl:
            raise GuestFault(VECTOR_GP, 0)
        page = self._operand()
        if page is None:
            return Result(Code.FAIL_INPUT)
        validated = bool(self._engine.read_gpr("rdx") & _MASK32)
        return self._told(pvalidate(self._rmp, guest, page, validated=validated), page)

    def _rmpadjust(self) -> Result:
        page, wanted = self._operand(), self._engine.read_gpr("rdx")
        if page is None or wanted >> _RESERVED_SHIFT:
            return Result(Code.FAIL_INPUT)
        perms, vmsa = Perm(wanted >> _PERMS_SHIFT & 0xFF), bool(wanted & _VMSA)
        return self._told(rmpadjust(self._rmp, self._mmu.nested.guest, page, wanted & _VMPL, perms, vmsa=vmsa), page)

    def _operand(self) -> GuestPage | None:
        """The page in RAX, of the size in ECX; None where that is no size, or the address is not of its size."""
        va, size = self._engine.read_gpr("rax"), self._engine.read_gpr("rcx") & _MASK32
        if size not in tuple(PageSize) or va % PageSize(size).bytes:
            return None
        found = self._mmu.operand(va, self._linear.mode())
        return GuestPage(found.gpa, found.spa, PageSize(size))

    def _told(self, told: Result | Fault, page: GuestPage) -> Result:
        if isinstance(told, Fault):
            self._mmu.nested.refuse(told, page.gpa)
        return told
