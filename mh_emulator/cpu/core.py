"""One CPU in guest mode: runs until an intercept, as VMRUN does.

What KVM makes of an intercept is in `mh_emulator.kvm`.
"""

from __future__ import annotations

from typing import assert_never

from unicorn import unicorn_const, x86_const

from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import OSXSAVE
from mh_emulator.cpu.attached import attach
from mh_emulator.cpu.blocks import Block, Told
from mh_emulator.cpu.breakpoint import Breakpoint
from mh_emulator.cpu.ctrl_c import held_back
from mh_emulator.cpu.delivery import TripleFault, deliver, raised
from mh_emulator.cpu.engine import GPRS, Engine
from mh_emulator.cpu.eventinj import EventInjection
from mh_emulator.cpu.exceptions import WITH_ERROR_CODE, Event
from mh_emulator.cpu.executed import Executed, watched
from mh_emulator.cpu.hooks import UnicornError
from mh_emulator.cpu.instructions import Instructions
from mh_emulator.cpu.intercepts import NON_AUTOMATIC, Code, Intercept
from mh_emulator.cpu.linear import Linear
from mh_emulator.cpu.locked import NotEmulatedError
from mh_emulator.cpu.memory_trace import MemoryTrace, TraceHook
from mh_emulator.cpu.microcode import Microcode
from mh_emulator.cpu.misses import Misses
from mh_emulator.cpu.mmu import VECTOR_VC, GuestFault, Mmu
from mh_emulator.cpu.msr import Msrs
from mh_emulator.cpu.nested import NestedFaultError, NoSlotError
from mh_emulator.cpu.operands import LONGEST_INSTRUCTION
from mh_emulator.cpu.ownership import Ownership
from mh_emulator.cpu.registers import CR0_PG, CR4_OSXSAVE, CR4_TSD, EFER_LMA, EFER_LME, RFLAGS_IF, Registers, levels
from mh_emulator.cpu.stop import Invalid, Raised, Stop, first
from mh_emulator.cpu.tlb import Missed, StaleCodeError, Tlb
from mh_emulator.cpu.traps import (
    LONGEST_ANSWERED,
    LONGEST_TRAPPED,
    SYSCALL_BYTES,
    Trap,
    Trapped,
    Traps,
    classify,
    classify_answered,
)
from mh_emulator.dram.bus import Turn
from mh_emulator.dram.dram import DramFullError

_HLT = b"\xf4"
_MASK32 = 0xFFFF_FFFF

_RAX, _RCX, _RDX, _RBX = (GPRS[name] for name in ("rax", "rcx", "rdx", "rbx"))
_RIP = x86_const.UC_X86_REG_RIP


class Core:
    """A CPU that executes `vm`; give it registers, then `run` it again and again."""

    def __init__(self, vm: Executed) -> None:
        self._vm = vm
        dram = vm.dram
        self._engine = Engine(dram.base_spa, dram.size, dram.host_address)
        self.msrs = Msrs(self._engine, vm)
        self._mmu = Mmu(vm)
        self._turn = Turn(dram.bus)
        self._stops: list[Stop] = []
        """What has stopped the engine since it was last started."""
        self._traps = Traps(self._engine, self._on_trap, self._on_lock, self._on_answered, dram.bus.crowd)
        self._tlb = Tlb(self._engine, self._mmu, vm, self._traps, self._turn, self._stops.append)
        self._told = Told(self._engine, self._turn, dram, self._tlb.native, self._traps.known, self._on_block)
        self._linear = Linear(self._engine, self._mmu)
        self._microcode = Microcode(self._engine, self._mmu, self._linear, self.msrs, self._tlb)
        ownership = None if vm.rmp is None else Ownership(self._engine, self._mmu, self._linear, vm.rmp)
        self._instructions = Instructions(vm, self._engine, self._linear, self._microcode, ownership)
        self._misses = Misses(self._engine, self._linear)
        self._kicked = False
        self._leaves = False
        """Whether devices have an interrupt for the guest."""
        self._late: Block | None = None
        """What has to be translated again, because it has new hooks."""
        self._stale: tuple[int, int] | None = None
        """Which instruction has last had which frame's code forgotten."""
        self.held: bytes | None = None
        """The VMSA in which the registers are as they are here, if there is one."""
        self.begun = 0
        """Instructions begun in the last `run` that had a limit."""
        self._trace, self._breakpoint = TraceHook(self._engine), Breakpoint(self._engine)
        self._add_hooks()

    def get_registers(self) -> Registers:
        """Read the whole state."""
        return self._engine.get_registers()

    def set_registers(self, registers: Registers) -> None:
        """Write the whole state; raise `ValueError` for one that no CPU can be in, or that the part does not have."""
        is_long = bool(registers.cr0 & CR0_PG and registers.efer & EFER_LME)
        if is_long is not bool(registers.efer & EFER_LMA):
            raise ValueError(f"CR0 {registers.cr0:#x}, EFER {registers.efer:#x}: LMA is LME with paging")
        if levels(registers.cr4) > self._vm.part.levels:
            raise ValueError(f"CR4 {registers.cr4:#x}: {self._vm.part.name} has page tables of 4 levels only")
        self.held = None
        self._engine.set_registers(registers)
        self._tlb.flush_translations()

    def flush_translations(self) -> None:
        """Forget cached translations, after a change of the VM's memory slots."""
        self._tlb.flush_translations()

    def kick(self) -> None:
        """Make `run` return soon, from another thread; a call before the engine has begun may be lost.

        Only to give up: the engine may then be at another instruction than it was.
        """
        self._kicked = True
        self._engine.uc.emu_stop()

    def close(self) -> None:
        """Stop watching memory; the CPU cannot be used any more."""
        self._tlb.close()

    def trace_memory(self, callback: MemoryTrace | None) -> None:
        """Call `callback` for every data access from now on, or stop that with None."""
        self._trace.tell(callback)
        self._tlb.flush_code()

    def set_breakpoint(self, address: int | None) -> None:
        """Leave the guest before the instruction at that linear address, every time it is to be executed."""
        self._breakpoint.set(address)
        self._tlb.flush_code()

    def read_linear(self, va: int, size: int) -> bytes:
        """Return memory as the guest's supervisor sees it at `va`; raise `GuestFault` or `NestedFaultError`."""
        return self._linear.read(va, size)

    def run(self, max_instructions: int | None = None, event: EventInjection | None = None) -> Intercept:
        """Run until an intercept, a `kick`, or until `max_instructions` have been begun; `begun` says how many were.

        `event` comes before the first of them; INVALID, and nothing else, where VMRUN does not take it.
        """
        self.begun = 0
        self._kicked = self._leaves = False
        if event is not None and not event.is_accepted:
            return Intercept(Code.INVALID)
        self.held = None
        with self._turn.running():
            if self._vm.devices is not None and self._vm.dram.bus.crowded:
                raise NotEmulatedError("a guest with devices runs while other vCPUs do")
            return self._run(max_instructions, event)

    def _run(self, max_instructions: int | None, event: EventInjection | None) -> Intercept:
        waiting = event
        try:
            if event is not None:
                self._deliver(event.event())
            waiting = None
            while not self._kicked and (max_instructions is None or self.begun < max_instructions):
                self.begun += self._start(None if max_instructions is None else max_instructions - self.begun)
                stop = Intercept(Code.DB) if self._breakpoint.take() else self._handle()
                if stop is not None and not self._reflect(stop):
                    return stop
                if self._leaves:
                    return Intercept(Code.VINTR)
        except TripleFault:
            return Intercept(Code.SHUTDOWN)
        except NestedFaultError as fault:
            return Intercept(Code.NPF, gpa=fault.gpa, error=fault.error, event=waiting)
        except DramFullError:
            return Intercept(Code.NO_MEMORY)
        return Intercept(Code.INTR)

    def _reflect(self, stop: Intercept) -> bool:
        """Under SEV-ES, deliver #VC for what would tell the hypervisor something; return whether that was so."""
        if not self._vm.es or stop.error or stop.code not in NON_AUTOMATIC:
            return False
        self._deliver(Event(VECTOR_VC, stop.code))
        return True

    def read(self, name: str) -> int:
        """A general-purpose register by name."""
        return self._engine.read_gpr(name)

    def write(self, name: str, value: int) -> None:
        """Set a general-purpose register by name."""
        self.held = None
        self._engine.write_gpr(name, value)

    @property
    def privilege(self) -> int:
        """CPL."""
        return self._engine.control().privilege

    @property
    def levels(self) -> int:
        """Levels of its page tables in long mode."""
        return levels(self._engine.control().cr4)

    @property
    def is_interruptible(self) -> bool:
        """Whether it takes an interrupt before its next instruction."""
        return self._engine.is_interruptible()

    @property
    def vmpl(self) -> int:
        """The VMPL at which an SNP guest's vCPU runs."""
        return self._mmu.nested.vmpl

    @vmpl.setter
    def vmpl(self, value: int) -> None:
        if value != self.vmpl:
            self._mmu.nested.vmpl = value
            self._tlb.flush_translations()

    def skip(self, length: int) -> None:
        """Move RIP behind an instruction of `length` bytes, which the hypervisor has executed."""
        self.held = None
        self._instructions.skip(length)

    def _start(self, limit: int | None) -> int:
        """Run the engine until something happens; return the instructions begun, 0 without a limit."""
        counts = limit is not None
        wanted = watched(self._vm, counts=counts)
        if self._tlb.counts is not counts or self._traps.watched != wanted:
            # Code that was translated without a counter would never stop for it, nor for what was not watched.
            self._traps.watch(wanted)
            self._told.use(self._traps.known)
            self._tlb.set_counts(counts)
        begun = self._go(limit)
        while self._late is not None:
            self._engine.uc.ctl_remove_cache(self._late.address, self._late.address + len(self._late.code))
            self._late = None
            if limit is None or begun < limit:
                begun += self._go(None if limit is None else limit - begun)
        return begun

    def _go(self, limit: int | None) -> int:
        """Run the engine until something happens, or until a block has to be translated again."""
        self._tlb.before_start()
        self._stops.clear()
        if not self._told.any:
            start = self._engine.pc()
            self._traps.cover_first(start, self._linear.code(start, PAGE_BYTES))
        try:
            start = self._engine.read(_RIP)
            with held_back(self._engine.uc.emu_stop), self._turn.executing():
                self._engine.uc.emu_start(start, 0, count=limit or 0)
        except UnicornError:
            if not any(isinstance(stop, Missed) for stop in self._stops):
                raise
        if limit is not None:
            return min(self._engine.executed(), limit)
        self._look_for_halt()
        return 0

    def _look_for_halt(self) -> None:
        """Note a HLT that was not watched: the engine stands still behind it for no reason of ours."""
        if self._stops or self._kicked or self._leaves or self._late or self._tlb.waits or self._vm.es:
            return
        if self._linear.code(self._engine.pc() - 1, 1) == _HLT:
            self._stops.append(Trapped(Trap.HLT, 0))

    def _handle(self) -> Intercept | None:
        """Handle what has stopped the engine; return the intercept that comes of it, if one does."""
        try:
            match first(self._stops):
                case None:
                    return None
                case Raised(vector):
                    self._deliver(raised(self._engine, self._linear, vector))
                    return None
                case Invalid():
                    return self._instructions.unknown()
                case Trapped() as trapped:
                    return self._instructions.trapped(trapped)
                case Missed() as missed:
                    return self._miss(missed)
                case other:
                    assert_never(other)
        except GuestFault as fault:
            error_code = fault.error_code if fault.vector in WITH_ERROR_CODE else None
            self._deliver(Event(fault.vector, error_code, fault.address))
            return None

    def _miss(self, missed: Missed) -> Intercept | None:
        match missed.reason:
            case StaleCodeError(frame=frame):
                return self._write_into_code(frame)
            case NoSlotError() as missing:
                return self._misses.outside(missed, missing)
            case NestedFaultError() as fault:
                raise fault
            case DramFullError():
                return Intercept(Code.NO_MEMORY)
            case GuestFault() as fault:
                self._deliver(self._misses.fault(missed, fault))
                return None
            case other:
                assert_never(other)

    def _write_into_code(self, frame: int) -> Intercept | None:
        """Forget what is cached of a frame, so that an instruction can write there.

        It may lie there itself, or what unicorn translates with it: then one is executed alone, at the price of all
        that is cached.
        """
        pc = self._engine.pc()
        is_again, self._stale = self._stale == (pc, frame), (pc, frame)
        spas = self._linear.spas(pc, PAGE_BYTES if is_again else LONGEST_INSTRUCTION)
        if frame not in {self._vm.dram.frame(spa) for spa in spas}:
            self._tlb.forget_page(frame)
            return None
        self._stale = None
        with self._tlb.code_writable():
            self._start(1)
        return self._handle()

    def _deliver(self, event: Event) -> None:
        before = self.get_registers()
        after = deliver(event, before, self._mmu)
        self._engine.enter_handler(after)
        if before.privilege != after.privilege:
            self._tlb.flush_translations()

    def _add_hooks(self) -> None:
        uc = self._engine.uc
        uc.hook_add(unicorn_const.UC_HOOK_INTR, self._on_interrupt)
        uc.hook_add(unicorn_const.UC_HOOK_INSN_INVALID, self._on_invalid)
        uc.hook_add(unicorn_const.UC_HOOK_INSN, self._on_cpuid, None, 1, 0, x86_const.UC_X86_INS_CPUID)
        uc.hook_add(unicorn_const.UC_HOOK_INSN, self._on_syscall, None, 1, 0, x86_const.UC_X86_INS_SYSCALL)
        if self._vm.devices is not None and not self._vm.es:
            attach(self._engine, self._vm.devices, self._turn, self._leave)
            self._tlb.has_devices = True

    def _note(self, stop: Stop) -> None:
        """Have the engine stop for this; called in its hooks."""
        self._stops.append(stop)
        self._engine.uc.emu_stop()

    def _leave(self) -> None:
        """Have the engine stop for an interrupt, if the guest has them on; called in its hooks."""
        if self._engine.control().rflags & RFLAGS_IF:
            self._leaves = True
            self._engine.uc.emu_stop()

    def _on_interrupt(self, _uc: object, vector: int, _data: object) -> None:
        self._note(Raised(vector))

    def _on_invalid(self, _uc: object, _data: object) -> bool:
        self._note(Invalid())
        return True

    def _on_syscall(self, _uc: object, _data: object) -> None:
        self._note(Trapped(Trap.SYSCALL, SYSCALL_BYTES))

    def _on_block(self, address: int, size: int, instructions: int) -> None:
        with self._turn.hooked():
            code = self._tlb.fetched(address, size) or self._linear.code(address, size)
            block = Block(address, code, instructions)
            if self._traps.cover(block):
                self._late = block
                self._engine.uc.emu_stop()

    def _on_trap(self, address: int) -> None:
        with self._turn.hooked():
            trapped = classify(self._linear.code(address, LONGEST_TRAPPED))
        # Without SEV-ES the guest cannot see what KVM does for CPUID, and unicorn has a hook for it.
        if trapped is not None and (self._vm.es or trapped.trap is not Trap.CPUID):
            self._note(trapped)

    def _on_lock(self, _address: int) -> None:
        if self._vm.dram.bus.crowded:
            self._note(Trapped(Trap.LOCK, 0))

    def _on_answered(self, address: int) -> None:
        with self._turn.hooked():
            trapped = classify_answered(self._linear.code(address, LONGEST_ANSWERED))
        if trapped is not None and self._is_answered(trapped.trap):
            self._note(trapped)

    def _is_answered(self, trap: Trap) -> bool:
        if trap in (Trap.RDRAND, Trap.RDSEED):
            return self._vm.generator.answers(seed=trap is Trap.RDSEED)
        control = self._engine.control()
        # The exception of CR4.TSD comes before the intercept: the engine has it.
        return self._vm.has_count and not (control.cr4 & CR4_TSD and control.privilege)

    def _on_cpuid(self, _uc: object, _data: object) -> int:
        leaf, subleaf = self._engine.read(_RAX) & _MASK32, self._engine.read(_RCX) & _MASK32
        eax, ebx, ecx, edx = self._vm.cpuid(leaf, subleaf)
        if leaf == 1 and self._engine.control().cr4 & CR4_OSXSAVE:
            ecx |= OSXSAVE
        for register, value in ((_RAX, eax), (_RBX, ebx), (_RCX, ecx), (_RDX, edx)):
            self._engine.write(register, value)
        return 1
