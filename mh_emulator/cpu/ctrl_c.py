"""Ctrl-C while unicorn runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back(stop: Callable[[], None]) -> Iterator[None]:
    """Hold SIGINT back until the block has ended; `stop` is called when one arrives.

    Python delivers it inside a callback of unicorn, where ctypes would swallow the exception and the
    callback's result with it: the guest would go on with a fault that no CPU has.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # What a shell runs in its background ignores Ctrl-C, and goes on doing so.
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append((number, frame))
        stop()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        # Here, so that it replaces an error of the engine that the stop has caused.
        if arrived and callable(before):
            before(*arrived[0])
