"""Page tables of 5 levels, CR4.LA57: addresses of 57 bits, private tables, faults.

Source: AMD64 APM volume 2, section 5.3; QEMU is asked for tables of Linux in `emulator_tests/report/test_linux.py`.
"""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    DATA,
    HEAP,
    HEAP_WORD,
    PAGE,
    SHARED,
    TABLES,
    TEXT,
    Guest,
    P,
    caught,
    run_to_halt,
)
from mh_builder.parts import PARTS
from mh_emulator.cpu.registers import CR4_LA57

FAR = 0x00AB_1234_5678_9000
"""An address that needs all five indices."""
NEGATIVE = 0xFFAB_0000_0000_0000
LA57 = 1 << 16


def deep() -> Guest:
    return Guest(part="genoa", levels=5)


@pytest.mark.parametrize("address", [FAR, NEGATIVE])
def test_an_address_of_57_bits(address: int) -> None:
    guest = deep()
    guest.tables.map(address, HEAP, DATA)
    vcpu = guest.launch("mov rbx, [rax + 8]\n mov [rax], rdx\n hlt", rax=address, rdx=77)
    assert run_to_halt(vcpu).rbx == HEAP_WORD
    assert guest.word(HEAP) == 77


def test_code_runs_there_and_sees_the_bit() -> None:
    guest = deep()
    guest.tables.map(FAR, TEXT, P)
    vcpu = guest.launch("mov rax, cr4\n hlt", rip=FAR)
    assert run_to_halt(vcpu).rax & CR4_LA57


def test_under_sev_es_too() -> None:
    guest = Guest(part="genoa", es=True, levels=5)
    guest.tables.map(FAR, HEAP, DATA)
    vcpu = guest.launch("mov rbx, [rax]\n hlt", rax=FAR)
    vcpu.run()
    assert guest.inside(vcpu).rbx == HEAP_WORD


def test_the_same_page_shared() -> None:
    guest = deep()
    guest.tables.map(FAR, HEAP, DATA, private=False)
    assert run_to_halt(guest.launch("mov rbx, [rax]\n hlt", rax=FAR)).rbx != HEAP_WORD


def test_a_hole_at_the_highest_level() -> None:
    fault = caught(deep().launch("mov rbx, [rax]\n hlt", rax=FAR))
    assert (fault.vector, fault.error_code, fault.cr2) == (14, 0, FAR)


def test_the_highest_entry_maps_nothing_itself() -> None:
    """Bit 7 is reserved above level 3."""
    guest = deep()
    guest.tables.map(FAR, HEAP, DATA)
    root = TABLES + 8 * (FAR >> 48 & 511)
    guest.tables.entries[root] |= 1 << 7
    fault = caught(guest.launch("mov rbx, [rax]\n hlt", rax=FAR))
    assert (fault.vector, fault.error_code, fault.cr2) == (14, 1 | 8, FAR)


def test_a_table_without_the_c_bit_is_private_all_the_same() -> None:
    """The walk is: its entries' own C-bit does not matter to the CPU (APM volume 2, section 15.34.5)."""
    guest = deep()
    guest.tables.map(FAR, HEAP, DATA)
    guest.tables.entries[TABLES + 8 * (FAR >> 48 & 511)] &= ~guest.tables.c_mask
    assert run_to_halt(guest.launch("mov rbx, [rax]\n hlt", rax=FAR)).rbx == HEAP_WORD


def test_an_address_of_58_bits_is_not_canonical() -> None:
    fault = caught(deep().launch("mov rbx, [rax]\n hlt", rax=1 << 56))
    assert (fault.vector, fault.error_code) == (13, 0)


def test_nor_is_one_of_57_bits_with_4_levels() -> None:
    fault = caught(Guest(part="genoa").launch("mov rbx, [rax]\n hlt", rax=FAR))
    assert (fault.vector, fault.error_code) == (13, 0)


@pytest.mark.parametrize("name", PARTS)
def test_only_a_part_that_says_so_has_them(name: str) -> None:
    part = PARTS[name]
    says = bool(part.cpuid(7, 0, encrypted=True).ecx & LA57)
    assert says == (part.levels == 5) == (part.physical_bits == 52)
    guest = Guest(part=name, levels=5)
    if says:
        guest.launch()
    else:
        with pytest.raises(ValueError, match=f"^CR4 0x1620: {name} has page tables of 4 levels only$"):
            guest.launch()


def test_the_shared_view_is_where_it_was() -> None:
    """The guest's low addresses go through the first entry of the fifth level."""
    guest = deep()
    vcpu = guest.launch(f"mov rbx, [{HEAP + PAGE - 8}]\n mov rcx, [{SHARED + HEAP}]\n hlt")
    state = run_to_halt(vcpu)
    assert state.rbx == HEAP_WORD
    assert state.rcx != HEAP_WORD
