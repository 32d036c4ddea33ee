"""Which test runs which instructions of which blob.

pytest -p emulator_tests.mutation.record [--mutation-folder FOLDER]
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulator_tests.coverage.blobs import blob
from emulator_tests.coverage.recorder import Table, begin, table

FOLDER = Path("out/mutation")
NAME = "record.json"
_FOLDER = "SEV_MH_RECORD"
"""Where the processes of a session leave what they saw."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one test took and ran: for each blob a mask, in which bit i is its instruction i."""

    seconds: float
    ran: dict[str, int]

    def runs(self, name: str, index: int) -> bool:
        """Whether it runs that instruction of that blob."""
        return bool(self.ran.get(name, 0) >> index & 1)


def read(path: Path) -> dict[str, Run]:
    """What was recorded, by test. Raises `FileNotFoundError`."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return {
        test: Run(seconds, {name: int(mask, 16) for name, mask in ran.items()})
        for test, (seconds, ran) in found.items()
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
        self._found: dict[str, tuple[float, dict[str, str]]] = {}
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
        ran = {name: mask for name in sorted(self._recorder.used) if (mask := _mask(table(name)))}
        if ran:
            self._found[item.nodeid] = round(self._seconds, 3), {name: f"{mask:x}" for name, mask in ran.items()}
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


def _mask(known: Table) -> int:
    """Of the instructions of a blob, those in blocks that ran."""
    ran = bytearray(len(known.blob.text))
    for offset, size in known.run():
        ran[offset : offset + size] = b"\1" * size
    bits = "".join("1" if ran[one.offset] else "0" for one in reversed(blob(known.blob.name).instructions))
    return int(bits, 2)


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    config.pluginmanager.register(_Session(config))
