"""unicorn's functions for vector instructions and those in their place, on the same random operands."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mh_builder.asm.native import is_possible
from mh_emulator.cpu import vector

FEATURES = {"pclmulqdq", "ssse3", "aes"}
ROUNDS = 3000
REGISTER_BYTES, XMM_BYTES = 64, 16
"""A ZMM register of unicorn, and what the functions work on; unicorn's PSHUFB leaves noise in the rest."""

Function = Callable[[object, object, object, int], None]
PROTOTYPE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_uint32)


def are_here() -> bool:
    """Whether this computer has the instructions, as Linux says it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not is_possible() or not cpuinfo.exists():
        return False
    flags = next(line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("flags"))
    return set(flags.split()) >= FEATURES


NEEDS_THEM = pytest.mark.skipif(not are_here(), reason=f"needs x86-64 Linux with {', '.join(sorted(FEATURES))}")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Function]:
    """unicorn's own functions, of a second copy of the library in which nothing was replaced."""
    copy = tmp_path_factory.mktemp("unicorn") / "unicorn.so"
    shutil.copy(vector.library(), copy)
    symbols = vector.find_symbols(copy, (vector.ANCHOR, *vector.NAMES.values()))
    anchor = ctypes.cast(getattr(ctypes.CDLL(str(copy)), vector.ANCHOR), ctypes.c_void_p).value or 0
    base = anchor - symbols[vector.ANCHOR].value
    return {name: PROTOTYPE(base + symbols[known].value) for name, known in vector.NAMES.items()}


def test_functions_are_replaced_where_the_computer_has_the_instructions() -> None:
    assert (set(vector.use_native()) == set(vector.NAMES)) is are_here()


@NEEDS_THEM
@pytest.mark.parametrize("name", vector.NAMES)
def test_results_are_those_of_unicorn(originals: dict[str, Function], name: str) -> None:
    numbers = random.Random(7)
    mine, theirs = PROTOTYPE(vector.use_native()[name]), originals[name]
    for number in range(ROUNDS):
        immediate = numbers.choice((0x00, 0x01, 0x10, 0x11, numbers.randrange(256)))
        first, second = (numbers.randbytes(REGISTER_BYTES) for _ in range(2))
        results = []
        for function in (mine, theirs):
            destination = ctypes.create_string_buffer(first, REGISTER_BYTES)
            source = ctypes.create_string_buffer(second, REGISTER_BYTES)
            function(None, destination, destination if number % 4 == 0 else source, immediate)
            results.append((destination.raw[:XMM_BYTES], source.raw))
        assert results[0] == results[1], (first.hex(), second.hex(), immediate)
        assert number % 4 == 0 or results[0][1] == second


def test_symbols_are_those_that_nm_finds() -> None:
    names = (vector.ANCHOR, *vector.NAMES.values(), "no_such_function")
    lines = subprocess.run(
        (str(shutil.which("nm")), "-S", vector.library()), capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    found = {
        fields[3]: (int(fields[0], 16), int(fields[1], 16)) for fields in map(str.split, lines) if len(fields) == 4
    }
    expected = {name: found[name] for name in names if name in found}
    assert len(expected) == len(names) - 1
    assert {name: tuple(symbol) for name, symbol in vector.find_symbols(vector.library(), names).items()} == expected


def test_a_library_without_symbols_has_none(tmp_path: Path) -> None:
    stripped = tmp_path / "stripped.so"
    strip = str(shutil.which("strip"))
    subprocess.run((strip, "-o", stripped, vector.library()), check=True, timeout=60)
    assert vector.find_symbols(stripped, vector.NAMES.values()) == {}
