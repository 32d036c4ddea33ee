"""The landing at the edges of what it looks at: tables, pages, gates and segments."""

from __future__ import annotations

from emulator_tests.landing.guest import HALTS, Change, End, arrived, goes_on, launched, refused, source, whole
from emulator_tests.machine.guests import GDT, HANDLERS, IDT, TABLES, Guest, gate
from mh_builder.save_area import Segment

NOWHERE = 0x60_0000
LAST = 255


def has_no_way(guest: Guest, change: Change = lambda _: None) -> bool:
    return refused(arrived(guest, launched(guest), change).vcpu.run()) is End.MH_LANDING_WAY


def test_a_table_that_no_entry_calls_private() -> None:
    """Though CPUs walk tables privately whatever entries say: no kernel leaves it out."""
    guest = source()
    guest.tables.entries[TABLES] &= ~guest.tables.c_mask
    assert has_no_way(guest)


def test_a_way_by_the_last_gate() -> None:
    guest = source()
    guest.contents[IDT] = gate(NOWHERE) * LAST + gate(HANDLERS + LAST)
    goes_on(guest, launched(guest))


def test_there_is_no_gate_behind_the_last() -> None:
    """Whatever the limit of the IDT says; what lies there would lead to a way."""
    guest = source()
    guest.contents[IDT] = gate(NOWHERE) * (LAST + 1)
    guest.patch(GDT, gate(HANDLERS))
    assert has_no_way(guest, whole("idtr", Segment(0, 0, 0x101F, IDT)))


def test_a_handler_at_a_first_page_that_is_not_there() -> None:
    guest = source()
    guest.contents[IDT] = gate(0) * 256
    assert has_no_way(guest)


def test_an_ldt_that_is_none() -> None:
    """Whatever a null selector hides."""
    guest = source()
    target = arrived(guest, launched(guest), whole("ldtr", Segment(0, 0, 0)))
    assert target.vcpu.run() == HALTS
    assert target.guest.inside(target.vcpu).ldtr.selector == 0
