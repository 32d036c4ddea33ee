"""Boots that are measured: what `boot --json` says of each, without its texts, goes into out/guests.json.

`docs/guests.py` makes tables of it. A boot that was measured before is replaced, so that some of them can be repeated.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from emulator_tests.command.conftest import ROOT, Command
from emulator_tests.conftest import FIRMWARE, KERNELS

FILE = ROOT / "out" / "guests.json"
TEXTS = ("console", "debug", "serial")


_WORTH = ("restored", "saved", None)
"""Whether a run has a snapshot; the later ones say more of how long a boot takes."""


class Measured:
    """The boots of one session; a call makes one, which has to be good."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, Any]] = {}

    def __call__(self, command: Command, *arguments: str | Path, snapshot: Path | None = None) -> dict[str, Any]:
        kept = () if snapshot is None else ("--snapshot", snapshot)
        outcome = command("boot", *arguments, *kept, "--json")
        assert outcome.code == 0, outcome.err
        found: dict[str, Any] = json.loads(outcome.out)
        run = {
            "arguments": [_named(argument) for argument in arguments],
            "report": {name: value for name, value in found.items() if name not in TEXTS},
        }
        before = self._runs.setdefault(json.dumps(run["arguments"]), run)
        if _WORTH.index(found["snapshot"]) > _WORTH.index(before["report"]["snapshot"]):
            self._runs[json.dumps(run["arguments"])] = run
        return found

    def write(self, path: Path) -> None:
        """Put them into the file, beside those that it has of other boots."""
        before = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
        runs = {json.dumps(run["arguments"]): run for run in before} | self._runs
        made = f"{dt.datetime.now(dt.UTC).date()} on {platform.machine()}, Python {platform.python_version()}"
        made += f", unicorn {version('unicorn')}"
        lines = ",\n".join(json.dumps(runs[key], sort_keys=True) for key in sorted(runs))
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{{"made": {json.dumps(made)}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")


def _named(argument: str | Path) -> str:
    """An argument, with files of the cache as every computer has them."""
    if isinstance(argument, str):
        return argument
    folder = next(folder for folder in (KERNELS, FIRMWARE) if argument.is_relative_to(folder))
    return argument.relative_to(folder).as_posix()


@pytest.fixture(scope="session")
def measured() -> Iterator[Measured]:
    """What is measured is written where the session ends."""
    found = Measured()
    yield found
    found.write(FILE)
