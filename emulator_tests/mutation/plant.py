"""Where a fault enters: each image is linked from objects, and an object is what the assembler answers."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from emulator_tests.coverage.blobs import is_data
from emulator_tests.mutation.mutants import KINDS, Mutant
from mh_builder import helper, landing
from mh_builder.asm import ObjectFile, Section, assemble, assemble_text
from mh_builder.firmware import driver

Change = tuple[str, int, Callable[[bytes], bytes]]
"""Place, count there, and what becomes of the instruction, in as many bytes."""

_ASSEMBLING = (helper, driver, landing)
_REMEMBERED = (
    helper.helper_objects,
    helper._objects,
    driver.loader_objects,
    driver.build_loader,
    landing.landing_object,
)

_TESTS = "emulator_tests"
_OWN = (f"{_TESTS}.coverage.", f"{_TESTS}.mutation.")
"""Modules that know the blobs as they are without a fault."""


@cache
def _assembled(path: Path, symbols: tuple[tuple[str, int], ...], name: str) -> ObjectFile:
    return assemble(path, symbols=dict(symbols), name=name)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Helpers and loaders have the fault that are built in here."""
    with changed((mutant.place, mutant.count, KINDS[mutant.kind])):
        yield


@contextmanager
def changed(change: Change | None) -> Iterator[None]:
    """Helpers and loaders that are built in here have that one instruction changed; None changes nothing."""

    def assembled(path: Path, *, symbols: dict[str, int], name: str) -> ObjectFile:
        unit = _assembled(path, tuple(sorted(symbols.items())), name)
        return replace(unit, sections=tuple(_changed(section, change) for section in unit.sections))

    with _assembler(assembled):
        yield


@contextmanager
def behind(source: str, line: str, more: str) -> Iterator[None]:
    """Helpers and loaders that are built in here have `more` behind that one line of that source."""

    def assembled(path: Path, *, symbols: dict[str, int], name: str) -> ObjectFile:
        if name != source:
            return _assembled(path, tuple(sorted(symbols.items())), name)
        text = path.read_text(encoding="ascii")
        if text.count(f"{line}\n") != 1:
            raise AssertionError(f"{source} has {text.count(line)} lines {line!r}")
        return assemble_text(text.replace(line, f"{line}\n{more}"), name, symbols=symbols, include_dir=path.parent)

    with _assembler(assembled):
        yield


@contextmanager
def _assembler(assembled: Callable[..., ObjectFile]) -> Iterator[None]:
    forget()
    for module in _ASSEMBLING:
        vars(module)["assemble"] = assembled
    try:
        yield
    finally:
        for module in _ASSEMBLING:
            vars(module)["assemble"] = assemble
        forget()


def forget() -> None:
    """Build anew what has been built, and what tests keep of it: they may have built it when they were collected."""
    for known in _REMEMBERED:
        known.cache_clear()
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{_TESTS}.") and not name.startswith(_OWN):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def _changed(section: Section, change: Change | None) -> Section:
    if section.name != ".text" or change is None:
        return section
    place, number, become = change
    counts: Counter[str] = Counter()
    for offset, size, at in section.places:
        if is_data(at.partition(" ")[0]):
            continue
        if (at, counts[at]) == (place, number):
            return _with(section, offset, size, become(section.data[offset : offset + size]))
        counts[at] += 1
    return section


def _with(section: Section, offset: int, size: int, code: bytes) -> Section:
    """With these bytes at `offset`; what was to be linked into them stays only where the instruction has not gone."""
    if len(code) != size:
        raise AssertionError(f"{len(code)} bytes in the place of {size}")
    gone = range(offset, offset + size) if set(code) == {0x90} else range(0)
    kept = tuple(one for one in section.relocations if one.offset not in gone)
    return replace(section, data=section.data[:offset] + code + section.data[offset + size :], relocations=kept)
