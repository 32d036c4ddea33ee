"""The memory bus: what lets CPUs of one machine run at once, each in a thread of its own.

A CPU has the bus whenever it does something in Python; it gives it away while its engine executes, which needs no
GIL either. Who has the bus and wants to change what another CPU has cached waits until that one's engine leaves or
comes to a hook: an engine that is stopped from outside forgets which instruction it was at. So a CPU that does
neither, in a loop without a locked instruction, holds up those that wait for it.

What an engine does natively (`mh_emulator.cpu.native`) it may do while nobody has the bus: it raises its flag, looks
whether the bus is taken, and does it in Python then, where it waits. Whoever takes the bus waits for these flags.

Engines do not execute locked instructions atomically, so while several run, those are done by the one that has the bus.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

_POLL_SECONDS = 20e-6


class Bus:
    """Held with `with`; whoever holds it may take it again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running: list[Turn] = []
        self._groups = 0
        self._depth = 0
        self._barrier = threading.Lock()
        self.executing: list[Turn] = []
        """Those whose engine may do something natively."""
        self.taken = ctypes.c_uint64()
        """Not 0 while somebody has the bus and an engine executes."""
        self.crowd = ctypes.c_uint64()
        """Not 0 while several CPUs run, or are about to."""
        self.overdue: Callable[[], None] | None = None
        """What whoever takes the bus next does before anything else: nobody is at work on memory then."""

    def __enter__(self) -> None:
        """Wait for the bus."""
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            if self.executing:
                self._take()
            if self.overdue is not None:
                self._catch_up(self.overdue)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Give it away."""
        self._depth -= 1
        if self.executing and not self._depth:
            self.taken.value = 0
        self._lock.release()

    def _take(self) -> None:
        """Keep engines from doing anything natively; none of them begins as long as the bus is held."""
        self.taken.value = 1
        # The store has to be seen before the flags are read; a lock's instruction is a fence on x86.
        with self._barrier:
            pass
        for turn in self.executing:
            while turn.native.value:
                time.sleep(_POLL_SECONDS)

    def _catch_up(self, overdue: Callable[[], None]) -> None:
        self.overdue = None
        overdue()

    @property
    def crowded(self) -> bool:
        """Whether several CPUs run, or are about to."""
        return bool(self.crowd.value)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Several CPUs will run in this block; none of them has begun."""
        with self:
            self._groups += 1
            self.crowd.value = 1
        try:
            yield
        finally:
            with self:
                self._groups -= 1
                self.crowd.value = self._groups > 0 or len(self._running) > 1

    def begin(self, turn: Turn) -> None:
        """A CPU begins to run; the bus is held."""
        self._running.append(turn)
        if len(self._running) > 1 and not self.crowded:
            self.crowd.value = 1
            # One that was alone may be just before a locked instruction.
            for other in self._running:
                other.wait()

    def end(self, turn: Turn) -> None:
        """It does not run any more; the bus is held."""
        self._running.remove(turn)
        self.crowd.value = self._groups > 0 or len(self._running) > 1


class Turn:
    """One CPU's part in the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._executes = False
        self.native = ctypes.c_uint64()
        """Not 0 while the engine does something natively that needs the bus."""
        self.started = False
        """Whether the engine has been started; it may be waiting in a hook."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """For all of a run; the bus is held but while the engine executes."""
        with self._bus:
            self._bus.begin(self)
            try:
                yield
            finally:
                self._bus.end(self)

    @contextmanager
    def executing(self) -> Iterator[None]:
        """While the engine executes: without the bus."""
        self.started = self._executes = True
        self._bus.executing.append(self)
        self._bus.__exit__(None, None, None)
        try:
            yield
        finally:
            self._executes = False
            self._bus.__enter__()
            self._bus.executing.remove(self)
            self.started = False

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """In a hook of the engine: with the bus."""
        before, self._executes = self._executes, False
        with self._bus:
            try:
                yield
            finally:
                self._executes = before

    def wait(self) -> None:
        """Wait until the engine does not execute; as long as the caller has the bus, it will not go on."""
        while self._executes:
            time.sleep(_POLL_SECONDS)
