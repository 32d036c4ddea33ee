"""The native answer to a TLB miss, held against the Python walk on random tables and modes."""

from __future__ import annotations

import ctypes
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from unicorn.unicorn_py3.unicorn import HOOK_TLB_FILL_CFUNC, uc_tlb_entry

from emulator_tests.machine.guests import (
    CODE,
    DATA,
    HEAP,
    KERNEL_CS,
    MEMORY,
    NX,
    PAGE,
    RW,
    TABLES,
    TEXT,
    US,
    USER_CS,
    A,
    D,
    Guest,
    P,
)
from mh_builder.asm.native import is_possible
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.mmu import Access, Mmu
from mh_emulator.cpu.native import native_fill
from mh_emulator.cpu.registers import CR0_WP, CR4_SMAP, CR4_SMEP, EFER_NXE, RFLAGS_AC
from mh_emulator.cpu.tlb import Missed, Tlb
from mh_emulator.cpu.traps import ALWAYS, Traps
from mh_emulator.dram.bus import Turn

LARGE, RESERVED = 1 << 7, 1 << 50
VAS = 60
ODD_LEAVES = {
    1: (2, DATA | LARGE),
    2: (2, P | RW | LARGE),
    3: (3, DATA | LARGE),
    4: (2, DATA | US | LARGE | 1 << 12),
    5: (2, DATA | LARGE | 1 << 13),
    6: (3, DATA | LARGE | 1 << 21),
    8: (4, DATA | LARGE),
    9: (1, DATA | RESERVED),
}
"""Number of an address -> level and value of an entry on its way."""
FLIPPED = (P, RW, US, A, D, NX, LARGE, RESERVED, 1 << 12, 1 << 30)

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs x86-64 Linux, or Python answers all")


class Subject:
    """A guest with random tables, and a TLB that is asked by hand."""

    def __init__(self, seed: int, levels: int) -> None:
        self.random = random.Random(seed)
        self.guest = Guest(part="genoa" if levels == 5 else "milan", levels=levels)
        self.vas = [self._map(n) for n in range(VAS)]
        paths = [self._slots(va) for va in self.vas]
        for n, slots in enumerate(paths):
            self._spoil(n, slots)
        self.guest.launch()
        self.dram = self.guest.platform.dram
        self.missed: list[Missed] = []
        self.engine = engine = Engine(self.dram.base_spa, self.dram.size, self.dram.host_address)
        traps = Traps(engine, _ignore, _ignore, _ignore, self.dram.bus.crowd)
        traps.watched = ALWAYS
        vm = self.guest.vm
        self.turn = Turn(self.dram.bus)
        self.tlb = Tlb(engine, Mmu(vm), vm, traps, self.turn, self.missed.append)
        for page in self.random.sample(range(0, TABLES, PAGE), 40):
            self.guest.memory.read_raw(page, 1)
        engine.set_registers(self.guest.registers())
        assert self.ask_python(TEXT, Access.FETCH)[0]

    def _map(self, n: int) -> int:
        tables, pick, levels = self.guest.tables, self.random, self.guest.levels
        va = pick.randrange(-(1 << 46), 1 << 46) & ~0x1F_FFFF if levels == 4 else pick.randrange(-(1 << 55), 1 << 55)
        if n in ODD_LEAVES:
            # The offset in a large leaf is one within the guest's memory.
            va = n << (39 if levels == 4 else 48)
        va = va & ((1 << 64) - 1) & -PAGE | pick.randrange(MEMORY) & -PAGE
        tables.map(
            va,
            TEXT if n % 7 == 0 else pick.randrange(0, MEMORY, PAGE),
            pick.choice((DATA, CODE, DATA | US, CODE | US)),
            private=n % 5 > 0,
        )
        return va

    def _spoil(self, n: int, slots: list[int]) -> None:
        tables, pick = self.guest.tables, self.random
        for slot in slots:
            if pick.random() < 0.06:
                tables.entries[slot] ^= pick.choice((*FLIPPED, tables.c_mask))
        if n in ODD_LEAVES:
            level, bits = ODD_LEAVES[n]
            tables.entries[slots[level - 1]] = bits | tables.c_mask

    def _slots(self, va: int) -> list[int]:
        """GPAs of the entries for `va`, the lowest first."""
        tables, table, slots = self.guest.tables, TABLES, []
        for shift in (48, 39, 30, 21, 12)[5 - tables.levels :]:
            slots.append(table + 8 * (va >> shift & 511))
            table = tables.entries[slots[-1]] & 0xFFFF_F000
        return slots[::-1]

    def set_mode(self, pick: random.Random) -> None:
        """Any of the modes that rights depend on."""
        usual = self.guest.registers()
        cr0, cr4, efer = usual.cr0 ^ CR0_WP * pick.randrange(2), usual.cr4, usual.efer
        cr4 |= CR4_SMAP * pick.randrange(2) | CR4_SMEP * pick.randrange(2)
        efer &= ~(EFER_NXE * (pick.random() < 0.1))
        cs = pick.choice((KERNEL_CS, USER_CS))
        rflags = usual.rflags | RFLAGS_AC * pick.randrange(2)
        self.engine.set_registers(usual.with_changes(cr0=cr0, cr4=cr4, efer=efer, cs=cs, rflags=rflags))
        self.tlb.flush_translations()
        self.tlb.before_start()

    def ask_python(self, va: int, access: Access) -> tuple[bool, int, int]:
        """What `Tlb.fill` answers."""
        entry = uc_tlb_entry()
        return self.tlb.fill(None, va, access, entry, None), entry.paddr, entry.perms

    def ask_native(self, va: int, access: Access) -> tuple[bool, int, int]:
        """What unicorn is answered."""
        functions = native_fill()
        assert functions is not None
        entry, state = uc_tlb_entry(), self.tlb.native.state
        call = HOOK_TLB_FILL_CFUNC(functions.address("native_fill"))
        good = call(self.engine.uc._uch, va, access, ctypes.pointer(entry), ctypes.addressof(state))
        return good, entry.paddr, entry.perms

    def ask_crowded(self, va: int, access: Access) -> tuple[bool, int, int]:
        """What `Tlb.fill` answers while several CPUs run."""
        with self.dram.bus.at_once():
            return self.ask_python(va, access)

    def seen(self) -> tuple[object, ...]:
        """All that a fill can change."""
        reasons = [(type(one.reason), one.access, one.va, one.reason.args) for one in self.missed]
        return bytes(self.tlb.cached), self.dram.views.tobytes(), self.dram.executed.tobytes(), reasons

    def memory(self) -> bytes:
        """Stored bytes of all the guest's pages, as they are held."""
        starts = [self.guest.memory.spa(page) - self.dram.base_spa for page in range(0, MEMORY, PAGE)]
        return b"".join(bytes(self.dram.view[start : start + PAGE]) for start in starts)


def _ignore(_address: int) -> None:
    """Nothing is executed here."""


def accesses(subject: Subject, seed: int) -> Iterator[tuple[int, Access]]:
    pick = random.Random(seed)
    for _ in range(20):
        subject.set_mode(pick)
        for _ in range(50):
            va = pick.choice(subject.vas) | pick.randrange(PAGE)
            yield va ^ (1 << 60) * (pick.random() < 0.03), pick.choice((Access.READ, Access.WRITE, Access.FETCH))


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("seed", range(2))
def test_random_tables(seed: int, levels: int) -> None:
    subjects = native, python, crowded = [Subject(seed, levels) for _ in range(3)]
    assert native.memory() == python.memory()
    fetched = 0
    for (va, access), *others in zip(*(accesses(subject, seed) for subject in subjects), strict=True):
        assert others == [(va, access)] * 2
        expected = python.ask_python(va, access)
        before = native.tlb.native.state.answered
        assert native.ask_native(va, access) == crowded.ask_crowded(va, access) == expected, hex(va)
        fetched += (native.tlb.native.state.answered - before) * (access is Access.FETCH)
        assert native.seen() == crowded.seen() == python.seen()
        if native.random.random() < 0.02:
            assert native.memory() == python.memory()
    assert native.memory() == crowded.memory() == python.memory()
    answered = native.tlb.native.state.answered
    assert fetched > 20
    kinds = Counter(type(missed.reason).__name__ for missed in native.missed)
    assert answered - fetched > 100
    assert kinds["GuestFault"] > 150
    assert kinds["NoSlotError"] > 0


def test_only_instructions_that_were_looked_at() -> None:
    """Not those of another frame at that address, nor of one that was forgotten: Python has to look at them first."""
    subject = Subject(0, 4)
    subject.set_mode(random.Random(1))
    subject.engine.set_registers(subject.guest.registers())
    state = subject.tlb.native.state

    def is_native() -> bool:
        before = state.answered
        assert subject.ask_native(TEXT, Access.FETCH)[0]
        return bool(state.answered > before)

    assert [is_native() for _ in range(2)] == [True, True]
    entry = subject._slots(TEXT)[0]
    spa = subject.guest.spa(entry)
    index = (spa - subject.dram.base_spa) // 8
    subject.dram.quadwords[index] += PAGE
    assert [is_native() for _ in range(2)] == [False, True]
    subject.tlb.forget_page(subject.dram.frame(subject.guest.spa(TEXT + PAGE)))
    assert [is_native() for _ in range(2)] == [False, True]
    subject.tlb.flush_code()
    assert [is_native() for _ in range(2)] == [False, True]


def test_it_waits_a_while_for_who_has_the_bus() -> None:
    """What is taken is let go soon in most cases; else Python waits, and meanwhile nothing is done natively."""
    subject = Subject(0, 4)
    subject.set_mode(random.Random(1))
    subject.engine.set_registers(subject.guest.registers())
    state, bus = subject.tlb.native.state, subject.dram.bus
    assert subject.ask_native(HEAP, Access.READ)[0]
    before = state.answered

    bus.taken.value = 1
    assert subject.ask_native(HEAP, Access.READ)[0]
    assert state.answered == before

    state.patience = 1 << 62
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(subject.ask_native, HEAP, Access.READ)
        # Long enough for it to come back, if it did not wait.
        assert not wait([asked], 0.05).done
        bus.taken.value = 0
        assert asked.result()[0]
    assert state.answered == before + 1
    assert subject.turn.native.value == 0
