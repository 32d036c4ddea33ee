"""Which test runs which instructions of which blob.

pytest -p emulator_tests.mutation.record [--mutation-folder FOLDER]
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulator_tests.coverage.recorder import Table, begin, table

FOLDER = Path("out/mutation")
NAME = "record.json"
_FOLDER = "SEV_MH_RECORD"
"""Where the processes of a session leave what they saw."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one blob, what a test saw of it: masks, in which bit i is its instruction i."""

    ran: int
    fell: int = 0
    taken: int = 0
    """Conditional branches, to either side."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one test took and saw, by blob."""

    seconds: float
    seen: dict[str, Seen]


def read(path: Path) -> dict[str, Run]:
    """What was recorded, by test. Raises `FileNotFoundError`."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return {
        test: Run(seconds, {name: Seen(*(int(mask, 16) for mask in masks)) for name, masks in seen.items()})
        for test, (seconds, seen) in found.items()
    }


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the command line may say."""
    parser.addoption("--mutation-folder", type=Path, default=FOLDER, help="where the record goes")


class _Session:
    """One process of a test session."""

    def __init__(self, config: pytest.Config) -> None:
        self._recorder = begin()
        self._target = config.getoption("--mutation-folder") / NAME
        self._is_worker = hasattr(config, "workerinput")
        self._found: dict[str, tuple[float, dict[str, list[str]]]] = {}
        self._seconds = 0.0
        if not self._is_worker:
            os.environ[_FOLDER] = tempfile.mkdtemp(prefix="mh-record-")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """What an item runs, with the fixtures that are made for it."""
        for name in self._recorder.used:
            _clear(table(name))
        self._seconds = 0.0
        done = yield
        seen = {name: masks for name in sorted(self._recorder.used) if (masks := _masks(table(name)))[0]}
        if seen:
            self._found[item.nodeid] = (
                round(self._seconds, 3),
                {name: [f"{mask:x}" for mask in masks] for name, masks in seen.items()},
            )
        return done

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """How long a part of it took."""
        self._seconds += report.duration

    def pytest_sessionfinish(self) -> None:
        """A worker leaves what it saw; the process that started it joins all."""
        folder = Path(os.environ[_FOLDER])
        (folder / f"{os.getpid()}.json").write_text(json.dumps(self._found), encoding="utf-8")
        if self._is_worker:
            return
        joined: dict[str, object] = {}
        for path in folder.iterdir():
            joined |= json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
        folder.rmdir()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._target.write_text(json.dumps(joined), encoding="utf-8")


def _clear(known: Table) -> None:
    for offset, _ in list(known.run()):
        known.entries[offset].size = 0
    for one in known.blob.instructions:
        if one.target is not None:
            entry = known.entries[one.offset + one.size]
            entry.fell = entry.taken = 0


def _masks(known: Table) -> list[int]:
    """Of the instructions of a blob: those in blocks that ran, and branches that fell through, and were taken."""
    ran = bytearray(len(known.blob.text))
    for offset, size in known.run():
        ran[offset : offset + size] = b"\1" * size
    instructions = known.blob.instructions
    ends = [known.entries[one.offset + one.size] if one.target is not None else None for one in instructions]
    return [
        _mask(bool(ran[one.offset]) for one in instructions),
        _mask(end is not None and bool(end.fell) for end in ends),
        _mask(end is not None and bool(end.taken) for end in ends),
    ]


def _mask(bits: Iterable[bool]) -> int:
    return int("".join("1" if bit else "0" for bit in bits)[::-1] or "0", 2)


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    config.pluginmanager.register(_Session(config))
