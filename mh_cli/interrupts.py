"""Ctrl-C that cannot be lost: unicorn's finalizers swallow every exception, a `KeyboardInterrupt` among them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_arrived = threading.Event()


@contextmanager
def noted() -> Iterator[None]:
    """Remember each SIGINT of the block, which raises `KeyboardInterrupt` as ever."""
    _arrived.clear()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        # Whoever ignores Ctrl-C, as a shell does for what runs in its background, goes on doing so.
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def check() -> None:
    """Raise `KeyboardInterrupt` if one came, for those that were swallowed."""
    if _arrived.is_set():
        raise KeyboardInterrupt


def _note(_number: int, _frame: FrameType | None) -> None:
    _arrived.set()
    raise KeyboardInterrupt
