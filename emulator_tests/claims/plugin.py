"""For pytest: says at the end of a session which claims hold, and writes it into a page that asks for it.

pytest -p emulator_tests.claims.plugin [--verification FILE]
"""

from __future__ import annotations

import datetime as dt
import platform
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from emulator_tests.claims.table import rows

_PLACE = re.compile(r"(<!-- verification -->\n).*(<!-- /verification -->)", re.DOTALL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the command line may say."""
    parser.addoption("--verification", type=Path, help="a page in which the table is written anew")


class _Session:
    """The process that hears of all tests."""

    def __init__(self, page: Path | None) -> None:
        self._page = page
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test counts as what was worst of it."""
        worst = self._outcomes.setdefault(report.nodeid, report.outcome)
        if worst == "passed":
            self._outcomes[report.nodeid] = report.outcome

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table."""
        terminalreporter.section("claims")
        for text, cases, result in rows(self._outcomes):
            terminalreporter.write_line(f"{cases:5}  {result:12} {text}", red=result not in {"holds", "not tried"})
        if self._page:
            self._page.write_text(written(self._page.read_text(encoding="utf-8"), self._outcomes), encoding="utf-8")


def written(page: str, outcomes: dict[str, str]) -> str:
    """The page with the table of this run. Raises `ValueError` where it has no place for one."""
    if not _PLACE.search(page):
        raise ValueError("no <!-- verification --> in the page")
    made = f"{platform.machine()}, Python {platform.python_version()}, unicorn {version('unicorn')}"
    lines = [
        f"Last run: {dt.datetime.now(dt.UTC).date()}, {len(outcomes)} tests, on {made}.\n",
        "| claim | cases | result |",
        "|---|---|---|",
        *(f"| {text} | {cases} | {result} |" for text, cases, result in rows(outcomes)),
    ]
    table = "\n".join(lines)
    return _PLACE.sub(lambda found: f"{found[1]}{table}\n{found[2]}", page)


def pytest_configure(config: pytest.Config) -> None:
    """Begin, but in workers: what they see is heard here."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Session(config.getoption("--verification")))
