"""What one vCPU has cached of translations and instructions, and the rules between vCPUs.

A frame that any CPU may execute is writable for none, so a write to it shows up as a TLB miss; only
then can instructions that lie in several caches be forgotten in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mh_builder.paging import PAGE_BYTES, PAGE_SHIFT
from mh_emulator.cpu.attached import WINDOW, WINDOW_BYTES
from mh_emulator.cpu.engine import CODELESS, Engine, TlbEntry
from mh_emulator.cpu.mmu import Access, GuestFault, Mmu, Mode, Translation, page_of
from mh_emulator.cpu.native import Fill
from mh_emulator.cpu.nested import GuestPhysical, NestedFaultError, NoSlotError
from mh_emulator.cpu.traps import Traps
from mh_emulator.dram.bus import Turn
from mh_emulator.dram.dram import CACHED, WRITABLE, DramFullError

_READ, _WRITE, _EXECUTE = 1, 2, 4


class StaleCodeError(Exception):
    """The access would change instructions in `frame` under the CPU's feet: forget them, then try again."""

    def __init__(self, frame: int) -> None:
        super().__init__(frame)
        self.frame = frame


@dataclass(frozen=True, slots=True)
class Missed:
    """An access that could not be let through, and why; of `va` unicorn tells no more than the page."""

    reason: GuestFault | NestedFaultError | StaleCodeError | DramFullError
    access: Access
    va: int


class Tlb:
    """The cache of one engine, filled on demand; an observer of DRAM.

    `on_miss` is told of every access that cannot be let through, in the hook that makes the engine stop for it.
    """

    def __init__(  # noqa: PLR0917 - what it stands between
        self,
        engine: Engine,
        mmu: Mmu,
        guest: GuestPhysical,
        traps: Traps,
        turn: Turn,
        on_miss: Callable[[Missed], None],
    ) -> None:
        self._engine = engine
        self._turn = turn
        self._stale_code = False
        self._mmu = mmu
        self._dram = guest.dram
        self._traps = traps
        self._on_miss = on_miss
        self.cached = bytearray(self._dram.size >> PAGE_SHIFT)
        self.code: set[int] = set()
        self._code_writable = False
        self._forgotten: int | None = None
        """The SPA of the page of which unicorn forgets something, while it does."""
        self.has_devices = False
        """Whether there are `attached` devices outside of all slots."""
        self.counts = False
        """Whether the engine counts instructions."""
        self.native = Fill(engine, guest, turn, self.cached, self.fill)
        self._dram.observers.append(self)
        self._rmp = guest.rmp
        if self._rmp is not None:
            self._rmp.watchers.append(self.forget_translations)

    def fill(self, _uc: object, va: int, access: int, entry: TlbEntry, _data: object) -> bool:
        """Answer unicorn's question for the page at `va`."""
        if self._forgotten is not None:
            entry.paddr, entry.perms = self._forgotten, _READ | _EXECUTE
            return True
        with self._turn.hooked():
            if self._dram.bus.crowded and self.native.answer(va, access, entry):
                return True
            return self._fill(va, Access(access), entry)

    def _fill(self, va: int, wanted: Access, entry: TlbEntry) -> bool:
        try:
            found = self._mmu.translate(va, wanted, Mode.of(self._engine.control()))
            self._dram.own(found.spa, found.key)
            entry.perms = self._fetch(va, found) if wanted is Access.FETCH else self._data(found, wanted)
        except (GuestFault, NestedFaultError, StaleCodeError, DramFullError) as reason:
            if isinstance(reason, NoSlotError) and self._is_for_devices(reason.gpa, wanted):
                entry.paddr, entry.perms = WINDOW | page_of(reason.gpa), _READ | _WRITE
                return True
            self._on_miss(Missed(reason, wanted, va))
            return False
        entry.paddr = page_of(found.spa) | (CODELESS if self._code_writable and wanted is Access.WRITE else 0)
        return True

    def _is_for_devices(self, gpa: int, wanted: Access) -> bool:
        return self.has_devices and wanted is not Access.FETCH and gpa < WINDOW_BYTES

    def _fetch(self, va: int, found: Translation) -> int:
        frame = self._dram.frame(found.spa)
        for observer in self._dram.observers:
            if observer.cached[frame] & WRITABLE:
                observer.flush_translations()
        self.cached[frame] |= CACHED
        if frame not in self.code:
            self.code.add(frame)
            self._dram.executed[frame] += 1
        self.native.remember(va, frame)
        return _READ | _EXECUTE if found.readable else _EXECUTE

    def fetched(self, va: int, size: int) -> bytes | None:
        """The instructions that the engine has just fetched, where they are known and do not cross a page."""
        frame, offset = self.native.fetched(va), va % PAGE_BYTES
        if frame is None or offset + size > PAGE_BYTES:
            return None
        start = (frame << PAGE_SHIFT) + offset
        return bytes(self._dram.view[start : start + size])

    def _data(self, found: Translation, wanted: Access) -> int:
        frame = self._dram.frame(found.spa)
        self.cached[frame] |= CACHED
        if wanted is Access.READ:
            if not found.writable or self._dram.executed[frame]:
                return _READ
        elif self._dram.executed[frame]:
            self._before_write(frame)
        # Without the right to execute, even where the page has it: stores to a page that is
        # executable in the TLB are ten times slower.
        self.cached[frame] |= WRITABLE
        return _READ | _WRITE

    def _before_write(self, frame: int) -> None:
        for observer in self._dram.observers:
            if frame in observer.code and observer is not self:
                observer.flush_code()
        if frame in self.code and not self._code_writable:
            raise StaleCodeError(frame)

    @contextmanager
    def code_writable(self) -> Iterator[None]:
        """Allow writes to frames with cached instructions for a while, and forget those before and after."""
        self.flush_code()
        self._code_writable = True
        try:
            yield
        finally:
            self._code_writable = False
            self.flush_code()

    def set_counts(self, counts: bool) -> None:  # noqa: FBT001
        """Forget all code, before the engine begins or ends to count."""
        ended, self.counts = self.counts and not counts, counts
        self._traps.counts = counts
        self.flush_code()
        if ended:
            with self._asked(self._dram.base_spa):
                self._engine.forget_counter()
            self.flush_code()

    def flush_translations(self) -> None:
        """Empty the TLB."""
        self._turn.wait()
        self._engine.flush_translations()
        self.cached[:] = bytes(len(self.cached))

    def forget_translations(self, spa: int, size: int) -> None:
        """Have the RMP asked again for the memory at `spa`, whose entry has changed."""
        first = self._dram.frame(spa)
        cached = self.cached[max(first, 0) : first + (size >> PAGE_SHIFT)]
        if CACHED in cached or CACHED | WRITABLE in cached:
            self.flush_translations()

    def flush_code(self) -> None:
        """Forget all translated code, and the TLB; not allowed in a hook of this CPU's engine."""
        self._turn.wait()
        if self._turn.started:
            # Its thread waits in a hook: when it has left after that.
            self._stale_code = True
        else:
            self._engine.flush_code()
            with self._asked(self._dram.base_spa):
                self._traps.forget()
        self._forget_code()
        self.flush_translations()

    @property
    def waits(self) -> bool:
        """Whether something has to be done before the engine goes on for long."""
        return self._stale_code

    def before_start(self) -> None:
        """Do what had to wait for the engine to leave; note what fills depend on."""
        if self._stale_code or self._traps.are_many:
            self._stale_code = False
            self.flush_code()
        self.native.refresh(only_slow=self._code_writable)

    def _forget_code(self) -> None:
        self.native.forget_fetched()
        for frame in self.code:
            self._dram.executed[frame] -= 1
        self.code.clear()

    def forget_page(self, frame: int) -> None:
        """Forget the code in one frame."""
        with self._asked(self._dram.base_spa + (frame << PAGE_SHIFT)):
            # By any address: what was asked for says where the code is.
            self._engine.uc.ctl_remove_cache(0, PAGE_BYTES)
        self.native.forget_frame(frame)
        if frame in self.code:
            self.code.remove(frame)
            self._dram.executed[frame] -= 1
        self.flush_translations()

    @contextmanager
    def _asked(self, spa: int) -> Iterator[None]:
        """While unicorn asks where the code lies that it forgets; nothing may be executed by what it is told."""
        self._forgotten = spa
        self.native.state.off = True
        try:
            yield
        finally:
            self._forgotten = None
            self.native.refresh(only_slow=self._code_writable)

    def close(self) -> None:
        """Stop watching DRAM."""
        self._forget_code()
        self._dram.observers.remove(self)
        if self._rmp is not None:
            self._rmp.watchers.remove(self.forget_translations)
