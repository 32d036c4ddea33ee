"""GNU as must make the same bytes of the kernels as our own assembler."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from mh_abi.sources import PAYLOAD

from .kernels import KERNELS, SYMBOLS, assembled, relocated

if TYPE_CHECKING:
    from collections.abc import Callable
from pathlib import Path

PLACES = {".text": 0x100000, ".rodata": 0x200000}
OUTSIDE = 0x300000


@pytest.fixture
def binutils(program: Callable[[str], str]) -> None:
    for tool in ("as", "ld", "objcopy"):
        program(tool)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=60)


def translated(text: str) -> str:
    """The source as GNU as has it: a name for a register is a symbol there, which may have another value later."""
    return re.sub(r"^\.unreg .*", "", re.sub(r"^\.reg ", ".set ", text, flags=re.MULTILINE), flags=re.MULTILINE)


@pytest.mark.usefixtures("binutils")
@pytest.mark.parametrize("name", KERNELS)
def test_same_bytes_as_gnu_as(name: str, tmp_path: Path) -> None:
    ours = assembled(name)
    outside = dict.fromkeys(ours.undefined, OUTSIDE)

    numbers = {symbol: value for symbol, value in SYMBOLS.items() if isinstance(value, int)}
    prelude = [".intel_syntax noprefix", *(f".set {symbol}, {value}" for symbol, value in numbers.items())]
    source, made, linked = tmp_path / "source.s", tmp_path / "made.o", tmp_path / "linked"
    for path in (*PAYLOAD.glob("*.inc"), PAYLOAD / f"{name}.s"):
        (tmp_path / path.name).write_text(translated(path.read_text(encoding="ascii")), encoding="ascii")
    source.write_text("\n".join([*prelude, f'.include "{name}.s"', ""]), encoding="ascii")
    run("as", "-I", tmp_path, "-o", made, source)
    starts = [f"--section-start={section}={place:#x}" for section, place in PLACES.items()]
    run("ld", "-e", "0", "-o", linked, *starts, *(f"--defsym={symbol}={OUTSIDE:#x}" for symbol in outside), made)

    for section, data in relocated(ours, PLACES, outside).items():
        run("objcopy", "-O", "binary", "-j", section, linked, tmp_path / "section")
        assert (tmp_path / "section").read_bytes() == data, section
