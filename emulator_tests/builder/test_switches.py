"""Sources that do not ask for a switch are assembled once for all switches."""

from __future__ import annotations

from pathlib import Path

import pytest

from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile, assemble
from mh_builder.helper import helper_objects

SWITCHES = [frozenset[str](), frozenset({"MH_START_ES"}), frozenset({"MH_START_32"})]
BUILT_NAME = """
.macro when name
.ifdef MH_START_\\name
    .byte 1
.endif
.endm
.section .rodata
when 32
"""
LATER_NUMBER = """
.section .rodata
    .byte COUNT
.ifndef MH_START_ES
.equ COUNT, 2
.else
.equ COUNT, 3
.endif
"""


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: "+".join(switches) or "none")
def test_shared_objects_are_those_of_the_switches(switches: frozenset[str]) -> None:
    symbols = abi.assembler_symbols() | dict.fromkeys(switches, 1)
    names = [unit.name for unit in helper_objects(switches)]
    afresh = [assemble(PAYLOAD / Path(name).name, symbols=symbols, name=name) for name in names]
    assert list(helper_objects(switches)) == afresh


def test_only_what_asks_is_assembled_again() -> None:
    plain, es, low = (helper_objects(switches) for switches in SWITCHES)
    assert _others(plain, es) == ["payload/features.s", "payload/random.s"]
    assert _others(plain, low) == ["payload/start32.s"]


@pytest.mark.parametrize(("text", "switch"), [(BUILT_NAME, "MH_START_32"), (LATER_NUMBER, "MH_START_ES")])
def test_sources_of_others(tmp_path: Path, text: str, switch: str) -> None:
    for header in abi.HEADERS:
        (tmp_path / header.name).write_bytes(header.read_bytes())
    (tmp_path / "asks.s").write_text(text)
    (tmp_path / "other.s").write_text(".section .rodata\n    .byte MH_PAGE_BYTES - 4096\n")
    plain, switched = helper_objects(frozenset(), tmp_path), helper_objects(frozenset({switch}), tmp_path)
    assert plain[0] != switched[0]
    assert plain[1] is switched[1]


def _others(one: tuple[ObjectFile, ...], other: tuple[ObjectFile, ...]) -> list[str]:
    return [unit.name for unit, same in zip(one, other, strict=True) if unit is not same]
