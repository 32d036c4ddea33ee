"""A limit on the time that a vCPU may run without an exit: one thread for all that run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_INTERVAL = 0.2


class _Watch:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[int, tuple[float, Callable[[], None]]] = {}
        self._next = 0
        self._thread: threading.Thread | None = None

    def add(self, deadline: float, stop: Callable[[], None]) -> int:
        with self._lock:
            self._next += 1
            self._limits[self._next] = deadline, stop
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
                self._thread.start()
            return self._next

    def remove(self, number: int) -> None:
        with self._lock:
            del self._limits[number]

    def _look(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            now = time.monotonic()
            with self._lock:
                # Again and again: one call may come before the engine has begun, and be lost.
                for deadline, stop in self._limits.values():
                    if now > deadline:
                        stop()


_WATCH = _Watch()


@contextmanager
def limited(seconds: float, stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop`, repeatedly and from another thread, while the block goes on for longer than `seconds`."""
    number = _WATCH.add(time.monotonic() + seconds, stop)
    try:
        yield
    finally:
        _WATCH.remove(number)
