"""One unicorn engine, and the parts of its CPU state that its interface leaves out.

Unicorn keeps the error code of an exception, the privilege level and the exception that is being handled
to itself. All are in the bytes of a saved context, whose layout is found out once by experiment, so that
another build of unicorn is noticed instead of misread.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import unicorn
from unicorn import unicorn_const, x86_const

from mh_emulator.cpu import segments
from mh_emulator.cpu.batch import Batch, WideBatch
from mh_emulator.cpu.hooks import EVERYWHERE, Foreign, add_hook
from mh_emulator.cpu.registers import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    EFER_LMA,
    EFER_LME,
    GPR_NAMES,
    RFLAGS_IF,
    X87,
    X87_COUNT,
    XMM_COUNT,
    Registers,
    SystemSegment,
    Table,
)
from mh_emulator.cpu.segments import SEGMENT_BYTES
from mh_emulator.cpu.vector import use_native

CODELESS = 1 << 51
"""Set in a physical address: the same memory, but unicorn does not look for code where it stores there.

Its own handling of self-modifying code starts the instruction again, which a limit of instructions counts twice.
"""

_unicorn: Foreign = unicorn

CPU_MODEL = x86_const.UC_CPU_X86_EPYC_ROME

MSR_EFER = 0xC000_0080
MSR_STAR, MSR_LSTAR, MSR_SFMASK = 0xC000_0081, 0xC000_0082, 0xC000_0084
MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE = 0xC000_0100, 0xC000_0101, 0xC000_0102

GPRS: Mapping[str, int] = MappingProxyType(
    {name: getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in GPR_NAMES}
)
"""Unicorn's numbers of the general-purpose registers."""
_XMMS = tuple(getattr(x86_const, f"UC_X86_REG_XMM{n}") for n in range(XMM_COUNT))
_X87 = tuple(getattr(x86_const, f"UC_X86_REG_FP{n}") for n in range(X87_COUNT))
_X87_CONTROL = (x86_const.UC_X86_REG_FPCW, x86_const.UC_X86_REG_FPSW, x86_const.UC_X86_REG_FPTAG)
_CONTROL = (
    *(x86_const.UC_X86_REG_CR0, x86_const.UC_X86_REG_CR3, x86_const.UC_X86_REG_CR4),
    *(x86_const.UC_X86_REG_CS, x86_const.UC_X86_REG_RFLAGS),
)
_GENERAL = {name: getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in (*GPR_NAMES, "rip", "cr2", "mxcsr")}
_TAG_EMPTY = 0b11
_NO_EXCEPTION = 0xFFFF_FFFF
_BUSY, _PRESENT = 1 << 9, 1 << 15
"""Of a system segment's attributes."""


class UnicornLayoutError(RuntimeError):
    """This build of unicorn keeps its state elsewhere."""


class Control(NamedTuple):
    """The registers that decide how an address is translated; `cs` is the selector, `efer` is with LMA."""

    cr0: int
    cr3: int
    cr4: int
    cs: int
    rflags: int
    efer: int

    @property
    def privilege(self) -> int:
        """CPL."""
        return self.cs & 3 if self.cr0 & CR0_PE else 0


CONTROL_REGISTERS = Control._fields[:-1]
"""Those that unicorn is asked for."""


class TlbEntry(Protocol):
    """What unicorn asks to be filled."""

    paddr: int
    perms: int


class Undelivered(NamedTuple):
    """What the CPU keeps of the exception that it stopped for."""

    error_code: int
    is_software: bool
    """From INT n, INT3 or INTO."""


class EngineOffsets(NamedTuple):
    """Byte offsets in a saved context, and of the instruction counter in the engine itself."""

    hflags: int
    segments: int
    error_code: int
    old_exception: int
    counter: int


class Engine:
    """A CPU whose memory is `size` bytes at `host_address`, at physical address `base`."""

    def __init__(self, base: int, size: int, host_address: int) -> None:
        self._layout = unicorn_layout()
        self.efer = 0
        """EFER without LMA, which every translation depends on; the engine's own answer is slow."""
        self.uc: Foreign = _new_engine()
        for address in (base, base | CODELESS):
            self.uc.mem_map_ptr(address, size, unicorn_const.UC_PROT_ALL, host_address)
        self._handle = handle = self.uc._uch  # noqa: SLF001
        self._counter = ctypes.c_size_t.from_address(_address_of(self.uc) + self._layout.counter)
        self._control, self._general = Batch(handle, _CONTROL), Batch(handle, tuple(_GENERAL.values()))
        self._xmm = WideBatch(handle, _XMMS)
        self._x87, self._x87_control = WideBatch(handle, _X87), Batch(handle, _X87_CONTROL)

    def control(self) -> Control:
        """Read the translation state."""
        cr0, cr3, cr4, cs, rflags = self._control.read()
        long = EFER_LMA if cr0 & CR0_PG and self.efer & EFER_LME else 0
        return Control(cr0, cr3, cr4, cs, rflags, self.efer | long)

    def read(self, register: int) -> Foreign:
        """Read one register by unicorn's number."""
        return self.uc.reg_read(register)

    def write(self, register: int, value: object) -> None:
        """Write one register by unicorn's number."""
        self.uc.reg_write(register, value)

    def read_gpr(self, name: str) -> int:
        """Read a general-purpose register by name."""
        return int(self.read(GPRS[name]))

    def write_gpr(self, name: str, value: int) -> None:
        """Write a general-purpose register by name."""
        self.write(GPRS[name], value)

    def flush_translations(self) -> None:
        """Empty the TLB; allowed inside a hook."""
        self.uc.ctl(unicorn_const.UC_CTL_TLB_FLUSH, unicorn_const.UC_CTL_IO_WRITE)

    def flush_code(self) -> None:
        """Forget all translated code; not allowed inside a hook."""
        self.uc.ctl_flush_tb()

    @property
    def control_batch(self) -> tuple[int, int, int]:
        """How native code reads the translation state: see `Batch.arguments`."""
        return self._control.arguments

    def hook_fill(self, function: int, data: int) -> None:
        """Have the C function at the address `function`, which gets `data`, asked for pages that are not in the TLB."""
        places = ctypes.c_void_p(function), ctypes.c_void_p(data)
        add_hook(self.uc, unicorn_const.UC_HOOK_TLB_FILL, *places, EVERYWHERE)

    def forget_counter(self) -> None:
        """Have unicorn remove its counter of instructions, which it does when it next starts; nothing is executed."""
        self.uc.ctl_set_exits([self.pc()])
        self.uc.emu_start(self.read(x86_const.UC_X86_REG_RIP), 0)
        self.uc.ctl_set_exits([])

    def executed(self) -> int:
        """Instructions begun since the last start with a limit."""
        return self._counter.value

    def take_exception(self) -> Undelivered:
        """Read what was raised last, and make the CPU forget it as delivery does."""
        context = self.uc.context_save()
        address = _context_address(context)
        error_code, is_software = struct.unpack("<II", ctypes.string_at(address + self._layout.error_code, 8))
        # Left in place, the next exception would count as raised during delivery: #DF, then shutdown.
        ctypes.c_uint32.from_address(address + self._layout.old_exception).value = _NO_EXCEPTION
        self.uc.context_restore(context)
        return Undelivered(error_code, bool(is_software))

    def write_efer(self, value: int) -> None:
        """Write EFER, for the guest or for its host; the CPU takes the bits that it has, and LMA is its own."""
        self.uc.msr_write(MSR_EFER, value)
        self.efer = self.uc.msr_read(MSR_EFER) & ~EFER_LMA

    def is_interruptible(self) -> bool:
        """Whether it takes interrupts: IF, and not in the shadow of STI or of a load of SS."""
        context = self.uc.context_save()
        return bool(self.control().rflags & RFLAGS_IF) and not segments.is_in_shadow(self._flags(context).value)

    def end_shadow(self) -> None:
        """Have interrupts wait for nothing more: the instruction behind STI, or a load of SS, has come to its end."""
        context = self.uc.context_save()
        flags = self._flags(context)
        if segments.is_in_shadow(flags.value):
            flags.value = segments.without_shadow(flags.value)
            self.uc.context_restore(context)

    def is_64_bit(self) -> bool:
        """Whether it executes 64-bit code."""
        context = self.uc.context_save()
        return segments.is_64_bit(self._flags(context).value)

    def pc(self) -> int:
        """Linear address of the instruction that it stands at."""
        rip, context = int(self.read(x86_const.UC_X86_REG_RIP)), self.uc.context_save()
        if segments.is_64_bit(self._flags(context).value):
            return rip
        return segments.read(_context_address(context) + self._layout.segments).bases["cs_base"] + rip & 0xFFFF_FFFF

    def _flags(self, context: Foreign) -> ctypes.c_uint32:
        """What QEMU sums up of the CPU's state, in a saved context that is kept."""
        return ctypes.c_uint32.from_address(_context_address(context) + self._layout.hflags)

    def enter_handler(self, registers: Registers) -> None:
        """Write what the delivery of an exception changes."""
        self._set_segments(registers)
        for name in ("rip", "rsp", "rflags", "cr2"):
            self.write(getattr(x86_const, f"UC_X86_REG_{name.upper()}"), getattr(registers, name))

    def _set_segments(self, registers: Registers) -> None:
        """Set segments without a look into descriptor tables, and the privilege level."""
        context = self.uc.context_save()
        segments.write(_context_address(context) + self._layout.segments, registers)
        flags = self._flags(context)
        flags.value = segments.summary(flags.value, registers)
        self.uc.context_restore(context)

    def get_registers(self) -> Registers:
        """Read the whole state."""
        general = dict(zip(_GENERAL, self._general.read(), strict=True))
        control = self.control()
        gdtr, idtr = self.read(x86_const.UC_X86_REG_GDTR), self.read(x86_const.UC_X86_REG_IDTR)
        context = self.uc.context_save()
        found = segments.read(_context_address(context) + self._layout.segments)
        return Registers(
            **general,
            **found.selectors,
            **found.bases,
            hidden=found.hidden,
            rflags=control.rflags,
            cr0=control.cr0,
            cr3=control.cr3,
            cr4=control.cr4,
            kernel_gs_base=self.uc.msr_read(MSR_KERNEL_GS_BASE),
            gdtr=Table(gdtr[1], gdtr[2]),
            idtr=Table(idtr[1], idtr[2]),
            tr=_busy(SystemSegment(*self.read(x86_const.UC_X86_REG_TR))),
            ldtr=SystemSegment(*self.read(x86_const.UC_X86_REG_LDTR)),
            efer=control.efer,
            star=self.uc.msr_read(MSR_STAR),
            lstar=self.uc.msr_read(MSR_LSTAR),
            sfmask=self.uc.msr_read(MSR_SFMASK),
            xmm=self._xmm.read(),
            x87=self._get_x87(),
        )

    def set_registers(self, registers: Registers) -> None:
        """Write the whole state."""
        self._leave_long_mode()
        self.write_efer(registers.efer)
        self._general.write(getattr(registers, name) for name in _GENERAL)
        for name in ("rflags", "cr3", "cr4", "cr0"):
            self.write(getattr(x86_const, f"UC_X86_REG_{name.upper()}"), getattr(registers, name))
        self.write(x86_const.UC_X86_REG_GDTR, (0, *registers.gdtr, 0))
        self.write(x86_const.UC_X86_REG_IDTR, (0, *registers.idtr, 0))
        self.write(x86_const.UC_X86_REG_TR, tuple(registers.tr))
        self.write(x86_const.UC_X86_REG_LDTR, tuple(registers.ldtr))
        for index, value in (
            (MSR_KERNEL_GS_BASE, registers.kernel_gs_base),
            (MSR_STAR, registers.star),
            (MSR_LSTAR, registers.lstar),
            (MSR_SFMASK, registers.sfmask),
        ):
            self.uc.msr_write(index, value)
        self._xmm.write(registers.xmm)
        self._set_x87(registers.x87)
        self._set_segments(registers)
        self.write(x86_const.UC_X86_REG_RIP, registers.rip)
        self.flush_translations()

    def _leave_long_mode(self) -> None:
        """Have the engine clear LMA: it does so where paging is switched off."""
        for cr0 in (CR0_PG | CR0_ET | CR0_PE, CR0_ET | CR0_PE):
            self.write(x86_const.UC_X86_REG_CR0, cr0)

    def _get_x87(self) -> X87:
        control, status, tags = self._x87_control.read()
        used = sum(1 << n for n in range(X87_COUNT) if tags >> 2 * n & _TAG_EMPTY != _TAG_EMPTY)
        return X87(control, status, used, self._x87.read())

    def _set_x87(self, state: X87) -> None:
        tags = sum(_TAG_EMPTY << 2 * n for n in range(X87_COUNT) if not state.used >> n & 1)
        self.write(x86_const.UC_X86_REG_FPCW, state.control)
        self.write(x86_const.UC_X86_REG_FPSW, state.status)
        self.write(x86_const.UC_X86_REG_FPTAG, tags)
        self._x87.write(state.registers)


def _busy(tr: SystemSegment) -> SystemSegment:
    """LTR marks the segment as busy, in TR too; the engine does so in memory alone."""
    busy = _BUSY if tr.attributes & _PRESENT else 0
    return tr._replace(attributes=tr.attributes | busy)


def _new_engine() -> Foreign:
    use_native()
    engine: Foreign = _unicorn.Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64, CPU_MODEL)
    engine.ctl_set_tlb_mode(unicorn_const.UC_TLB_VIRTUAL)
    # Without this unicorn fetches from the `until` address of every start.
    engine.ctl_exits_enabled(True)  # noqa: FBT003
    return engine


def _address_of(engine: Foreign) -> int:
    address = ctypes.cast(engine._uch, ctypes.c_void_p).value  # noqa: SLF001
    assert address is not None  # noqa: S101
    return address


def _context_address(context: Foreign) -> int:
    address: int = context.context.value
    return address


@functools.cache
def unicorn_layout() -> EngineOffsets:
    """Find out where unicorn keeps its state; raise `UnicornLayoutError` where that is not certain."""
    engine = _new_engine()
    engine.mem_map(0, 0x1000)
    engine.hook_add(unicorn_const.UC_HOOK_TLB_FILL, _identity)
    before = bytes(engine.context_save())
    engine.hook_add(unicorn_const.UC_HOOK_INTR, lambda uc, _vector, _data: uc.emu_stop())
    engine.mem_write(0, b"\x8e\xd8" + b"\x90" * 100)  # mov ds, eax: #GP with that selector
    selector, rip, fs_base, cs = 0xABC8, 0x1357_9BDF_2468_ACE0, 0x1234_5678_9ABC_DEF0, 0x2468
    engine.reg_write(x86_const.UC_X86_REG_RAX, selector)
    engine.emu_start(0, 0)
    engine.reg_write(x86_const.UC_X86_REG_RAX, 0)
    engine.reg_write(x86_const.UC_X86_REG_RIP, rip)
    engine.reg_write(x86_const.UC_X86_REG_FS_BASE, fs_base)
    engine.reg_write(x86_const.UC_X86_REG_CS, cs)
    after = bytes(engine.context_save())

    error_code = _only("error code", after, struct.pack("<I", selector))
    segments = _only("FS base", after, struct.pack("<Q", fs_base)) - 4 * SEGMENT_BYTES - 8
    if segments + SEGMENT_BYTES != _only("CS", after, struct.pack("<I", cs)):
        raise UnicornLayoutError("unicorn: the segments are not 24 bytes each in the order ES, CS, SS, DS, FS, GS")
    if _only("RIP", after, struct.pack("<Q", rip)) + 56 != segments:
        raise UnicornLayoutError("unicorn: the flags of the CPU are not between RIP and the segments")
    changed = [
        offset
        for offset in range(error_code, len(after) - 3, 4)
        if before[offset : offset + 4] == b"\xff" * 4 and after[offset : offset + 4] == struct.pack("<I", 13)
    ]
    if len(changed) != 1:
        raise UnicornLayoutError(f"unicorn: {len(changed)} places look like the exception in delivery, expected 1")
    return EngineOffsets(segments - 8, segments, error_code, changed[0], _find_counter(engine))


def _find_counter(engine: Foreign) -> int:
    limit = 57
    engine.ctl_flush_tb()
    engine.emu_start(2, 0, count=limit)
    state = ctypes.string_at(_address_of(engine), 2048)
    # The counter has seen the instruction that the limit stopped.
    return _only("instruction counter", state, struct.pack("<QQ", limit + 1, limit))


def _identity(_uc: object, address: int, _access: int, entry: TlbEntry, _data: object) -> bool:
    entry.paddr, entry.perms = address, unicorn_const.UC_PROT_ALL
    return True


def _only(name: str, state: bytes, pattern: bytes) -> int:
    if state.count(pattern) != 1:
        raise UnicornLayoutError(f"unicorn: {state.count(pattern)} places look like the {name}, expected 1")
    return state.find(pattern)
