"""The landing at the edges of what it looks at: addresses, levels of tables, pages, gates and segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emulator_tests.landing.guest import HALTS, WAY, End, arrived, goes_on, launched, refused, source
from emulator_tests.machine.guests import (
    CODE,
    GDT,
    HANDLERS,
    IDT,
    PAGE,
    RW,
    STACK,
    TABLES,
    TEXT,
    US,
    A,
    D,
    Guest,
    P,
    assemble,
    gate,
)
from mh_builder.save_area import Segment, put, put_segment

LARGE = 1 << 7
SLOT = 1 << 39
"""Bytes under an entry of the root table."""
REGISTERS: dict[str, Any] = {"rdx": 0x1111_2222_3333_4444, "rax": 5}
NOWHERE = 0x60_0000


def is_refused(guest: Guest, reason: End, change: Callable[[bytearray], None] = lambda _: None) -> bool:
    return refused(arrived(guest, launched(guest), change).vcpu.run()) is reason


def handled_from(guest: Guest, base: int, vectors: range = range(256)) -> None:
    """Have gates of these vectors lead to the handlers as they are mapped from `base` on, and others nowhere."""
    gates = (gate(base + HANDLERS + vector if vector in vectors else NOWHERE) for vector in range(256))
    guest.contents[IDT] = b"".join(gates)


def test_a_stack_that_is_mapped_but_for_its_upper_bits() -> None:
    assert is_refused(source(), End.MH_LANDING_STACK, lambda page: put(page, "rsp", 1 << 60 | STACK))


def test_a_table_that_no_entry_calls_private() -> None:
    """Though CPUs walk tables privately whatever entries say: no kernel leaves it out."""
    guest = source()
    guest.tables.entries[TABLES] &= ~guest.tables.c_mask
    assert is_refused(guest, End.MH_LANDING_WAY)


def test_a_page_of_512_gib_is_none() -> None:
    guest = source()
    guest.tables.entries[TABLES] = guest.tables.entries[TABLES] & ~US | LARGE
    assert is_refused(guest, End.MH_LANDING_WAY)


def test_it_goes_on_in_a_page_of_1_gib() -> None:
    guest = source()
    far = 0xFFFF_8000_4000_0000
    guest.tables.entry_address(far)
    upper = guest.tables.entries[TABLES + 8 * (far >> 39 & 511)] & 0xF_FFFF_F000
    guest.tables.entries[upper + 8 * (far >> 30 & 511)] = P | RW | A | D | LARGE | guest.tables.c_mask
    handled_from(guest, far)
    state, _ = goes_on(guest, launched(guest, rip=far + TEXT, rsp=far + STACK))
    assert state.rip == far + TEXT + 1


@pytest.mark.parametrize("slot", [1, 2])
def test_a_way_where_its_own_tables_have_something_else(slot: int) -> None:
    guest = source()
    guest.tables.map(slot * SLOT + HANDLERS, HANDLERS, CODE)
    handled_from(guest, slot * SLOT)
    assert is_refused(guest, End.MH_LANDING_WAY)


def test_a_way_behind_what_its_own_tables_have() -> None:
    guest = source()
    guest.tables.map(3 * SLOT + HANDLERS, HANDLERS, CODE)
    handled_from(guest, 3 * SLOT)
    goes_on(guest, launched(guest))


def test_a_way_by_the_last_gate() -> None:
    guest = source()
    handled_from(guest, 0, range(255, 256))
    goes_on(guest, launched(guest))


def test_there_is_no_gate_behind_the_last() -> None:
    """Whatever the limit of the IDT says; what lies there would lead to a way."""
    guest = source()
    handled_from(guest, 0, range(0))
    guest.patch(GDT, gate(HANDLERS))
    change = Segment(0, 0, 0x101F, IDT)
    assert is_refused(guest, End.MH_LANDING_WAY, lambda page: put_segment(page, "idtr", change))


def test_a_handler_at_a_first_page_that_is_not_there() -> None:
    guest = source()
    guest.contents[IDT] = gate(0) * 256
    assert is_refused(guest, End.MH_LANDING_WAY)


def test_a_way_that_ends_with_its_page() -> None:
    guest = source(way="nop\n nop\n nop")
    guest.patch(HANDLERS + PAGE - 3, assemble("pop rdx\n iretq"))
    goes_on(guest, launched(guest, **REGISTERS))


def test_a_way_that_ends_in_memory_behind_its_page() -> None:
    """Of which nobody knows what is mapped there."""
    guest = source(way="nop\n nop\n nop")
    way = assemble("pop rdx\n iretq")
    guest.patch(HANDLERS + PAGE - 2, way[:2])
    guest.contents[HANDLERS + PAGE] = way[2:]
    assert is_refused(guest, End.MH_LANDING_WAY)


def test_a_way_with_just_the_room_before_it() -> None:
    guest = source(way="nop\n nop\n nop")
    guest.contents[HANDLERS + PAGE] = b"\xcc\xcc\xcc" + assemble("pop rdx\n iretq")
    guest.tables.map(HANDLERS + PAGE, HANDLERS + PAGE, CODE)
    goes_on(guest, launched(guest, **REGISTERS))


@pytest.mark.parametrize("decoy", [assemble("pop rdx\n nop"), b"\x60" + assemble("iretq"), b"\x57" + assemble("iretq")])
def test_what_is_almost_a_way(decoy: bytes) -> None:
    """A POP with something else behind it, and IRETQ behind bytes beside those of POP."""
    guest = source()
    guest.patch(WAY, decoy + assemble("pop rdx\n iretq"))
    goes_on(guest, launched(guest, **REGISTERS))


def test_an_ldt_that_is_none() -> None:
    """Whatever a null selector hides."""
    guest = source()
    vcpu = launched(guest)
    target = arrived(guest, vcpu, lambda page: put_segment(page, "ldtr", Segment(0, 0, 0)))
    assert target.vcpu.run() == HALTS
    assert target.guest.inside(target.vcpu).ldtr.selector == 0
