"""A process that runs tests in turn, of the session that it was forked from, until one fails."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress

import pytest
from _pytest.runner import runtestprotocol

_FAILED, _PASSED = 10, 11
_SLACK = 30
"""Seconds that a test may take beyond twenty times what it took: then the fault has hung it."""
_SLOWER = 20
_ROOM = 4096


def _spent() -> float:
    """CPU seconds of this process and of those that it has started and seen end."""
    return sum(os.times()[:4])


class Child:
    """Tests in turn under a fault, for so many CPU `seconds`; `took` is what each takes without one."""

    def __init__(
        self,
        fault: Callable[[], AbstractContextManager[None]],
        items: Sequence[pytest.Item],
        took: Sequence[float],
        seconds: float,
    ) -> None:
        with tempfile.TemporaryFile() as said:
            self._said = os.dup(said.fileno())
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(1, 2)
            with fault():
                os._exit(self._run(items, took, seconds))

    def _run(self, items: Sequence[pytest.Item], took: Sequence[float], seconds: float) -> int:
        begun = _spent()
        for number, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
            if _spent() - begun > seconds:
                self._say(f"{number} of {len(items)} tests")
                return _PASSED
            self._say(item.nodeid)
            # Nobody handles it: it ends the process, whatever that is doing.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(_SLACK + _SLOWER * took[number]))
            if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
                return _FAILED
        self._say(f"all {len(items)} tests")
        return _PASSED

    def _say(self, text: str) -> None:
        os.pwrite(self._said, text.encode().ljust(_ROOM, b"\0"), 0)

    def end(self, status: int) -> tuple[bool, str]:
        """Of a child that has ended so: whether its tests passed, and which one failed, or how many passed."""
        last = os.pread(self._said, _ROOM, 0).rstrip(b"\0").decode()
        os.close(self._said)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return os.WIFEXITED(status) and os.WEXITSTATUS(status) == _PASSED, last
