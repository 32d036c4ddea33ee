"""For pytest: records what of the blobs' code the session runs, and fails it for a line without a reason.

pytest -p emulator_tests.coverage.plugin [--coverage-report FILE]
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from emulator_tests.coverage.recorder import begin, table
from emulator_tests.coverage.report import Gap, Traces, gaps, stale, summary

_FOLDER = "SEV_MH_COVERAGE"
"""Where the processes of a session leave what they saw."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the command line may say."""
    parser.addoption("--coverage-report", type=Path, default=Path("out/coverage.txt"), help="where the lines go")


class _Session:
    """One process of a test session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._recorder = begin()
        self._is_worker = hasattr(config, "workerinput")
        self._traces = Traces()
        self._gaps: list[Gap] = []
        self._stale: list[str] = []
        if not self._is_worker:
            os.environ[_FOLDER] = tempfile.mkdtemp(prefix="mh-coverage-")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker leaves what it saw; the process that started it joins all."""
        folder = Path(os.environ[_FOLDER])
        (folder / f"{os.getpid()}.json").write_text(json.dumps(self._seen()), encoding="ascii")
        if self._is_worker:
            return
        for path in folder.iterdir():
            for name, (blocks, fell, taken) in json.loads(path.read_text(encoding="ascii")).items():
                self._traces.add(name, blocks, fell, taken)
            path.unlink()
        folder.rmdir()
        seen = self._traces.seen()
        self._gaps, self._stale = gaps(seen), stale(seen)
        if session.exitstatus == pytest.ExitCode.OK and (self._stale or any(gap.why is None for gap in self._gaps)):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _seen(self) -> dict[str, tuple[list[tuple[int, int]], list[int], list[int]]]:
        return {
            name: (
                list(table(name).run()),
                [end for end, entry in enumerate(table(name).entries) if entry.fell],
                [end for end, entry in enumerate(table(name).entries) if entry.taken],
            )
            for name in self._recorder.used
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, and what is missing."""
        if self._is_worker:
            return
        lines = [f"{gap.line}: {gap.missing}: {gap.why or 'WITHOUT A REASON'}" for gap in self._gaps]
        lines += [f"{line}: carries a reason, and all of it runs" for line in self._stale]
        report = self._config.getoption("--coverage-report")
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("\n".join([*summary(self._traces), "", *lines, ""]), encoding="utf-8")
        terminalreporter.section("machine code that ran")
        for line in summary(self._traces):
            terminalreporter.write_line(line)
        bad = [line for line, gap in zip(lines, self._gaps, strict=False) if gap.why is None]
        for line in [*bad, *lines[len(self._gaps) :]]:
            terminalreporter.write_line(line, red=True)
        terminalreporter.write_line(f"lines with a reason: {len(self._gaps) - len(bad)}, in {report}")


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    config.pluginmanager.register(_Session(config))
