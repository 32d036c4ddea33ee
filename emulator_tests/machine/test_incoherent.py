"""Parts whose caches are not coherent between ASIDs: stale until flushed, and nothing worse."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import Guest, run_to_halt
from mh_builder.parts import PARTS
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.incoherent import IncoherentDram
from mh_emulator.platform import Platform

PAGE = 0x1000
BASE = 0x12_3400_0000
KEY, OTHER_KEY = bytes(range(16)), bytes(range(1, 17))
A, SHARING, OTHER = 7, 8, 9
OLD, NEW = b"o" * PAGE, b"n" * PAGE


def dram() -> IncoherentDram:
    memory = IncoherentDram(1 << 20, BASE, PARTS["rome"], 1)
    memory.install_key(A, KEY)
    memory.install_key(SHARING, KEY)
    memory.install_key(OTHER, OTHER_KEY)
    memory.write_private(A, BASE, OLD)
    memory.flush(BASE, PAGE)
    return memory


@pytest.mark.parametrize("part", PARTS)
def test_which_parts_are(part: str) -> None:
    platform = Platform(PARTS[part], 1 << 20, 1)
    assert isinstance(platform.dram, IncoherentDram) is (part in ("naples", "rome"))


def test_the_same_key_under_another_asid_is_stale_until_flushed() -> None:
    memory = dram()
    memory.write_private(A, BASE, NEW)
    assert memory.read_private(A, BASE, PAGE) == NEW
    assert memory.read_private(SHARING, BASE, PAGE) == OLD
    memory.flush(BASE + 5, 1)
    assert memory.read_private(SHARING, BASE, PAGE) == NEW
    assert memory.read_private(A, BASE, PAGE) == NEW


def test_what_was_read_stays_in_the_cache_too() -> None:
    memory = dram()
    assert memory.read_private(SHARING, BASE, PAGE) == OLD
    memory.write_private(A, BASE, NEW)
    memory.flush(BASE + PAGE, PAGE)
    assert memory.read_private(SHARING, BASE, PAGE) == OLD
    memory.flush_all()
    assert memory.read_private(SHARING, BASE, PAGE) == NEW


def test_lines_that_nobody_changed_are_not_written_back() -> None:
    """A reader with an old copy must not undo what was written meanwhile; two writers of a page both win."""
    memory = dram()
    memory.read_private(SHARING, BASE, PAGE)
    memory.write_private(A, BASE + 64, b"A" * 64)
    memory.write_private(SHARING, BASE + 256, b"S" * 64)
    memory.flush_all()
    seen = OLD[:64] + b"A" * 64 + OLD[128:256] + b"S" * 64 + OLD[320:]
    for asid in (A, SHARING):
        assert memory.read_private(asid, BASE, PAGE) == seen


def test_the_host_sees_and_changes_dram_only() -> None:
    memory = dram()
    before = memory.read_raw(BASE, PAGE)
    memory.write_private(A, BASE, NEW)
    assert memory.read_raw(BASE, PAGE) == memory.peek_raw(BASE) == before
    memory.write_raw(BASE, bytes(PAGE))
    assert memory.read_private(A, BASE, PAGE) == NEW
    memory.flush(BASE, PAGE)
    assert memory.read_private(A, BASE, PAGE) == NEW
    memory.write_raw(BASE, before)
    assert memory.read_private(A, BASE, PAGE) == NEW
    memory.flush_all()
    assert memory.read_private(A, BASE, PAGE) == OLD


def test_after_a_flush_everything_is_as_on_a_coherent_part() -> None:
    coherent, memory = Dram(1 << 20, BASE, PARTS["rome"], 1), dram()
    for asid, key in ((A, KEY), (SHARING, KEY), (OTHER, OTHER_KEY)):
        coherent.install_key(asid, key)
    for one in (coherent, memory):
        for asid, offset, data in ((A, 0, OLD), (OTHER, PAGE // 2, NEW), (A, 100, b"xyz"), (SHARING, 99, b"abcdef")):
            one.write_private(asid, BASE + offset, data)
            one.flush_all()
    assert memory.read_raw(BASE, 2 * PAGE) == coherent.read_raw(BASE, 2 * PAGE)


def test_a_vcpu_looks_again_after_a_flush() -> None:
    """Two vCPUs, one page, one key, two ASIDs: the reader has the page in its TLB while the other writes."""
    guest = Guest("rome")
    reader = guest.launch("again: mov rax, [0x40000]\n hlt\n jmp again")
    memory = guest.platform.dram
    memory.install_key(SHARING, memory.key(guest.vm.asid)[:16])
    first = run_to_halt(reader).rax
    memory.write_private(SHARING, guest.spa(0x40000), (99).to_bytes(8, "little"))
    assert run_to_halt(reader).rax == first != 99
    guest.platform.psp.wbinvd()
    assert run_to_halt(reader).rax == 99
