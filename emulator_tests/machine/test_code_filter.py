"""Addresses that are watched while unicorn counts: each is noticed, once, wherever the code lies."""

from __future__ import annotations

import random

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu import code_filter
from mh_emulator.cpu.code_filter import CodeFilter

PAGES = 70
"""More than a filter has room for at first."""
BASE = 0x10_0000
NOP, HLT = 0x90, 0xF4


class Plain:
    """As much of an engine as a filter needs: unicorn alone, with code of nothing but NOP."""

    def __init__(self) -> None:
        self.uc = Uc(UC_ARCH_X86, UC_MODE_64)
        self.uc.mem_map(BASE, PAGES * PAGE_BYTES)
        self.uc.mem_write(BASE, bytes([NOP]) * PAGES * PAGE_BYTES)


@pytest.mark.parametrize("is_native", [True, False])
def test_each_address_is_noticed_once(monkeypatch: pytest.MonkeyPatch, is_native: bool) -> None:
    if not is_native:
        monkeypatch.setattr(code_filter, "_native_filter", lambda: None)
    engine, seen, numbers = Plain(), list[int](), random.Random(3)
    watched = CodeFilter(engine, seen.append)  # type: ignore[arg-type]
    wanted = {BASE + page * PAGE_BYTES + numbers.randrange(PAGE_BYTES) for page in range(PAGES)}
    wanted |= {BASE, BASE + PAGE_BYTES - 1, BASE + PAGES * PAGE_BYTES - 1}
    for address in wanted:
        watched.add(address)
    assert len(watched) == len(wanted)
    engine.uc.emu_start(BASE, BASE + PAGES * PAGE_BYTES, count=PAGES * PAGE_BYTES)
    assert seen == sorted(wanted)
    watched.forget()
    engine.uc.ctl_flush_tb()
    engine.uc.emu_start(BASE, BASE + PAGE_BYTES, count=PAGE_BYTES)
    assert (len(watched), len(seen)) == (0, len(wanted))
