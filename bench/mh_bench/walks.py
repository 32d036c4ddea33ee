"""What it takes to read the page tables of a dump, beside volatility3: whole processes, which take turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

import mh_builder
from mh_abi.errors import MigrationHelperError
from mh_builder.report.elf import MAGIC
from mh_builder.report.open import Hints, open_layout
from mh_builder.report.physical import DumpError, map_file

RUNS = 5

_PRELUDE = """\
import atexit, os, sys

def said():
    with open("/proc/self/status") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmHWM:"))
    print(sum(os.times()[:2]), peak, file=sys.stderr)

atexit.register(said)
"""
"""Of each process, as its last line on stderr: CPU seconds, and the most KiB that it had (proc(5), VmHWM)."""
_OURS = "from mh_cli.main import main\nmain(sys.argv[1:])\n"
_PEER = "import runpy\nsys.argv[0:1] = []\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"


class WalkError(MigrationHelperError):
    """A program that was to be measured has failed."""


class Walk(NamedTuple):
    """One program: median CPU seconds, user and system, and the most MiB of any run."""

    name: str
    seconds: float
    mib: float


class Walks(NamedTuple):
    """All that were measured; `absent` says why one was not."""

    walks: tuple[Walk, ...]
    absent: tuple[str, ...]


def measure(dump: Path, peer: Path) -> Walks:
    """Measure over a dump that says CR3; `peer` is an interpreter that has volatility3.

    Raises `DumpError` where the dump cannot be read, `WalkError` where a program fails.
    """
    try:
        layout = open_layout(map_file(dump), dump.stem, Hints())
    except DumpError as error:
        raise DumpError(f"{dump}: {error}") from None
    ours, path = sys.executable, str(dump.resolve())
    commands = {
        "show --json": [ours, "-c", _PRELUDE + _OURS, "show", "--json", path],
        "audit": [ours, "-c", _PRELUDE + _OURS, "audit", path],
    }
    absent = _why_not(dump, layout.geometry.levels, peer)
    if not absent:
        program = str(Path(__file__).with_name("volatility.py"))
        commands["volatility3"] = [str(peer), "-c", _PRELUDE + _PEER, program, path, hex(layout.reading.cr3)]
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            runs[name].append(_run(command))
    walks = tuple(Walk(name, median(s for s, _ in took), max(mib for _, mib in took)) for name, took in runs.items())
    return Walks(walks, (absent,) if absent else ())


def _run(command: list[str]) -> tuple[float, float]:
    folder = Path(mh_builder.__file__).parents[1]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)  # noqa: S603
    if not ended.stdout:
        raise WalkError(f"{command[0]} {' '.join(command[3:])} ended with {ended.returncode} and printed nothing")
    seconds, kib = ended.stderr.splitlines()[-1].split()
    return float(seconds), int(kib) / 1024


def _why_not(dump: Path, levels: int, peer: Path) -> str:
    """Why volatility3 does not take part, empty where it does."""
    with dump.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return "volatility3: it reads ELF cores, and this is another dump"
    if levels != 4:
        return f"volatility3: it reads 4 levels, and these tables have {levels}"
    asked = [str(peer), "-c", "import volatility3.framework"]
    try:
        known = subprocess.run(asked, capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError as error:
        return f"volatility3: {peer}: {error.strerror}"
    return "" if known else f"volatility3: {peer} does not have it (pip install volatility3)"
