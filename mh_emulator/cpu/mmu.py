"""Address translation as the CPU does it: guest tables, rights, accessed and dirty bits, memory slots.

Source: AMD64 APM volume 2, sections 5.6 (page protection), 8.4.2 (page-fault error code), 15.34 (SEV).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from unicorn import unicorn_const

from mh_builder.paging import (
    ACCESSED,
    DIRTY,
    ENTRY_BYTES,
    NO_EXECUTE,
    PAGE_BYTES,
    PRESENT,
    Geometry,
    Hole,
    Leaf,
    is_canonical,
    walk,
)
from mh_emulator.cpu.engine import Control
from mh_emulator.cpu.nested import GuestPhysical, Nested, NotValidatedError
from mh_emulator.cpu.registers import (
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    RFLAGS_AC,
    levels,
)
from mh_emulator.dram.process import pieces
from mh_emulator.rmp.access import Kind
from mh_emulator.rmp.instructions import GuestPage

VECTOR_UD, VECTOR_DF, VECTOR_TS, VECTOR_NP, VECTOR_SS, VECTOR_GP, VECTOR_PF, VECTOR_VC = 6, 8, 10, 11, 12, 13, 14, 29

_MASK32 = 0xFFFF_FFFF
_PAE_TABLE = 0xFFFF_FFE0
"""Of CR3: where the four entries are."""

PF_PRESENT, PF_WRITE, PF_USER, PF_RESERVED, PF_FETCH = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4


class Access(IntEnum):
    """What is wanted of an address; the numbers are unicorn's."""

    READ = unicorn_const.UC_MEM_READ
    WRITE = unicorn_const.UC_MEM_WRITE
    FETCH = unicorn_const.UC_MEM_FETCH


_KINDS = {Access.READ: Kind.READ, Access.WRITE: Kind.WRITE, Access.FETCH: Kind.FETCH}


class GuestFault(Exception):
    """An exception that the guest must handle; `address` is what #PF puts into CR2."""

    def __init__(self, vector: int, error_code: int, address: int | None = None) -> None:
        super().__init__(vector, error_code, address)
        self.vector = vector
        self.error_code = error_code
        self.address = address


class Mode(NamedTuple):
    """The state that rights depend on."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    user: bool
    alignment_check: bool
    """RFLAGS.AC, which lifts SMAP for explicit accesses."""

    @classmethod
    def of(cls, control: Control) -> Mode:
        """Return the mode of the code that runs now."""
        cr0, cr3, cr4, _, rflags, efer = control
        return cls(cr0, cr3, cr4, efer, control.privilege == 3, bool(rflags & RFLAGS_AC))

    def supervisor(self) -> Mode:
        """Return the mode of accesses that the CPU makes on its own behalf."""
        return self._replace(user=False, alignment_check=False)


class Translation(NamedTuple):
    """Where an access goes; `spa` is of the very byte."""

    spa: int
    key: bytes | None
    """Under which the access sees memory, or None for raw bytes."""
    writable: bool
    """A write needs no further look into the tables."""
    readable: bool
    """A read sees the same: instructions are fetched private even where data is shared."""


class Mmu:
    """Translates for one guest."""

    def __init__(self, guest: GuestPhysical) -> None:
        self._guest = guest
        self._dram = guest.dram
        self.nested = Nested(guest)

    def translate(self, va: int, access: Access, mode: Mode) -> Translation:
        """Translate `va` and set accessed and dirty bits; raise `GuestFault` or `NestedFaultError`."""
        try:
            if not mode.cr0 & CR0_PG:
                return self._unpaged(va & _MASK32, access, mode)
            leaf, writable = self._leaf(va, access, mode)
            return self._place(leaf, access, mode, writable=writable)
        except NotValidatedError as found:
            # That CR2 gets the address is recollection of section 15.36.10.
            raise GuestFault(VECTOR_VC, found.error_code, va) from None

    def operand(self, va: int, mode: Mode) -> GuestPage:
        """The page of `va` for an instruction that changes the RMP, with the rights of a read by its page tables.

        Raises `GuestFault` or `NestedFaultError`; for the page itself the RMP is not asked.
        """
        try:
            if not mode.cr0 & CR0_PG:
                return self.nested.page(va & _MASK32 & -PAGE_BYTES)
            leaf, _ = self._leaf(va, Access.READ, mode)
            return self.nested.page(leaf.gpa & -PAGE_BYTES)
        except NotValidatedError as found:
            raise GuestFault(VECTOR_VC, found.error_code, va) from None

    def _leaf(self, va: int, access: Access, mode: Mode) -> tuple[Leaf, bool]:
        """What the guest's tables say, marked as used, and whether they let it write."""
        if not mode.efer & EFER_LMA:
            found = self._walk_legacy(va & _MASK32, mode)
        elif is_canonical(va, levels(mode.cr4)):
            found = walk(self._read_entry, mode.cr3, va, self._geometry(mode))
        else:
            raise GuestFault(VECTOR_GP, 0)
        leaf, writable = self._check(found, va, access, mode)
        self._mark(leaf, access)
        return leaf, writable

    def _place(self, leaf: Leaf, access: Access, mode: Mode, *, writable: bool) -> Translation:
        nested, gpa, private, user = self.nested, leaf.gpa, leaf.private, mode.user
        spa = nested.spa(gpa, _KINDS[access], private=private, user=user)
        key = self._guest.key
        view = key if private or access is Access.FETCH else None
        is_dirty = access is Access.WRITE or bool(leaf.path[-1][2] & DIRTY)
        readable = (private or key is None) and _allows(leaf, Access.READ, mode, writable=writable)
        # Of what has just been let through the RMP is not asked again.
        return Translation(
            spa,
            view,
            writable
            and is_dirty
            and (access is Access.WRITE or nested.allows(gpa, Kind.WRITE, private=private, user=user)),
            readable and (access is Access.READ or nested.allows(gpa, Kind.READ, private=private, user=user)),
        )

    def _walk_legacy(self, va: int, mode: Mode) -> Leaf | Hole:
        """Through the tables of PAE, whose uppermost entries give no rights (5.2.3); without PAE nothing is mapped."""
        entry = self._read_entry((mode.cr3 & _PAE_TABLE) + (va >> 30) * ENTRY_BYTES) if mode.cr4 & CR4_PAE else 0
        if not entry & PRESENT:
            return Hole(reserved=False, path=())
        return walk(self._read_entry, entry, va, self._guest.geometry._replace(levels=2))

    def _unpaged(self, gpa: int, access: Access, mode: Mode) -> Translation:
        """Without page tables there is no C-bit, and an SEV guest sees all memory privately (15.34.5)."""
        nested, user = self.nested, mode.user
        spa = nested.spa(gpa, _KINDS[access], user=user)
        allowed = {kind: nested.allows(gpa, kind, private=True, user=user) for kind in (Kind.WRITE, Kind.READ)}
        return Translation(spa, self._guest.key, allowed[Kind.WRITE], allowed[Kind.READ])

    def read(self, va: int, size: int, mode: Mode, access: Access = Access.READ) -> bytes:
        """Read linear memory, as the CPU does on its own behalf."""
        return b"".join(
            bytes(self._dram.view[start : start + length]) for start, length in self._resolve(va, size, mode, access)
        )

    def write(self, va: int, data: bytes, mode: Mode) -> None:
        """Write linear memory; nothing is written where a part of it faults."""
        done = 0
        for start, length in list(self._resolve(va, len(data), mode, Access.WRITE)):
            self._dram.forget_code(start + self._dram.base_spa)
            self._dram.view[start : start + length] = data[done : done + length]
            done += length

    def _resolve(self, va: int, size: int, mode: Mode, access: Access) -> Iterator[tuple[int, int]]:
        for start, length in pieces(va, size):
            found = self.translate(start, access, mode)
            self._dram.own(found.spa, found.key)
            yield found.spa - self._dram.base_spa, length

    def _geometry(self, mode: Mode) -> Geometry:
        found = self._guest.geometry
        return found._replace(levels=5) if mode.cr4 & CR4_LA57 else found

    def _read_entry(self, gpa: int) -> int:
        return self._dram.quadwords[self._entry(gpa, Kind.WALK)]

    def _entry(self, gpa: int, kind: Kind) -> int:
        spa = self.nested.spa(gpa, kind)
        self._dram.own(spa, self._guest.key)
        return (spa - self._dram.base_spa) // ENTRY_BYTES

    def _check(self, found: Leaf | Hole, va: int, access: Access, mode: Mode) -> tuple[Leaf, bool]:
        """Raise #PF where the access is not allowed; return the leaf, and whether a write would be."""
        code = PF_WRITE if access is Access.WRITE else 0
        code |= PF_USER if mode.user else 0
        if access is Access.FETCH and (mode.efer & EFER_NXE or mode.cr4 & CR4_SMEP):
            code |= PF_FETCH
        no_execute_allowed = bool(mode.efer & EFER_NXE)
        reserved = isinstance(found, Hole) and found.reserved
        reserved |= not no_execute_allowed and any(entry & PRESENT and entry & NO_EXECUTE for _, _, entry in found.path)
        if reserved:
            raise GuestFault(VECTOR_PF, code | PF_PRESENT | PF_RESERVED, va)
        if isinstance(found, Hole):
            raise GuestFault(VECTOR_PF, code, va)
        writable = found.writable or not (mode.user or mode.cr0 & CR0_WP)
        if not _allows(found, access, mode, writable=writable):
            raise GuestFault(VECTOR_PF, code | PF_PRESENT, va)
        return found, writable

    def _mark(self, leaf: Leaf, access: Access) -> None:
        last = leaf.path[-1]
        for step in leaf.path:
            _, gpa, entry = step
            wanted = ACCESSED | (DIRTY if step is last and access is Access.WRITE else 0)
            if entry & wanted != wanted:
                self._dram.quadwords[self._entry(gpa, Kind.WALK_UPDATE)] = entry | wanted


def _allows(leaf: Leaf, access: Access, mode: Mode, *, writable: bool) -> bool:
    if mode.user and not leaf.user:
        return False
    if access is Access.FETCH:
        return leaf.executable and not (leaf.user and not mode.user and mode.cr4 & CR4_SMEP)
    if leaf.user and not mode.user and mode.cr4 & CR4_SMAP and not mode.alignment_check:
        return False
    return writable or access is Access.READ


def page_of(address: int) -> int:
    """First address of the page of `address`."""
    return address & -PAGE_BYTES
