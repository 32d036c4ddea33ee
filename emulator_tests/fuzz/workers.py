"""Several loops at once, each a process, on one folder: what one keeps the others go on with."""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from emulator_tests.fuzz import corpus
from emulator_tests.fuzz.loop import Loop
from emulator_tests.fuzz.runner import Outcome, Runner
from emulator_tests.fuzz.script import Script, loads

_LOOK = 100
"""Inputs between two looks at what others have kept."""
_NUMBERS = struct.Struct("<4Q")
"""Of one process: inputs, edges and answers, inputs worth keeping, violations."""
_ROOM = 4096
_NAP = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """When to end: after so many seconds, after so many inputs of all processes, or never."""

    seconds: float | None = None
    inputs: int | None = None


class Board:
    """What a process says of itself, and the input that it runs, in memory that the one that started it sees."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROOM)
        self.stop = mmap.mmap(-1, 1)
        """Not 0 when it is to end."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Inputs, edges and answers, inputs worth keeping, violations."""
        return _NUMBERS.unpack_from(self._memory)

    def say(self, loop: Loop) -> None:
        """How far the loop is."""
        _NUMBERS.pack_into(self._memory, 0, loop.inputs, loop.reached, len(loop.corpus), len(loop.violations))

    def running(self, data: bytes) -> None:
        """What runs now."""
        struct.pack_into("<I", self._memory, _NUMBERS.size, len(data))
        self._memory[_NUMBERS.size + 4 : _NUMBERS.size + 4 + len(data)] = data

    @property
    def last(self) -> bytes:
        """What ran last."""
        (size,) = struct.unpack_from("<I", self._memory, _NUMBERS.size)
        return self._memory[_NUMBERS.size + 4 : _NUMBERS.size + 4 + size]


class Told(Runner):
    """Says what it runs before it does."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board

    def run(self, script: Script) -> Outcome:
        """Play a script, and say so."""
        self._board.running(script.dumps())
        return super().run(script)


def work(folder: Path, first: Path, seed: str, board: Board, limits: Limits) -> None:
    """One process's loop, which begins with the corpus `first`.

    It ends with whoever has started it, or when that sets `board.stop`.
    """
    known: set[str] = set()
    loop = Loop(Told(board), random.Random(seed))
    loop.begin([*corpus.read(first), *_others(folder, known)])
    began, begun, told = time.monotonic(), loop.inputs, 0
    board.say(loop)
    parent = os.getppid()
    while not board.stop[0] and os.getppid() == parent:
        if limits.seconds is not None and time.monotonic() - began > limits.seconds:
            break
        if limits.inputs is not None and loop.inputs - begun >= limits.inputs:
            break
        kept = loop.step()
        if kept is not None:
            known.add(corpus.write(folder / "corpus", kept.dumps()).name)
        if loop.inputs % _LOOK == 0:
            for data in _others(folder, known):
                loop.run(loads(data))
        for script, violation in list(loop.violations.values())[told:]:
            path = corpus.write(folder / "crashes", script.dumps())
            path.with_suffix(".txt").write_text(f"{violation}\n{script}\n", encoding="utf-8")
        told = len(loop.violations)
        board.say(loop)


def _others(folder: Path, known: set[str]) -> Iterator[bytes]:
    for path in sorted((folder / "corpus").glob("*.bin")):
        if path.name not in known:
            known.add(path.name)
            yield path.read_bytes()


class Workers:
    """Processes that fuzz in one folder; it goes on where earlier ones have stopped."""

    def __init__(self, folder: Path, first: Path, name: str, jobs: int, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._state = folder / "state.json"
        self._before = json.loads(self._state.read_text(encoding="ascii"))["inputs"] if self._state.exists() else 0
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        share = None if limits.inputs is None else -(-limits.inputs // jobs)
        self._boards: dict[int, Board] = {}
        for job in range(jobs):
            board = Board()
            seed = f"{name} {job} {self._before}"
            own = Limits(limits.seconds, share)
            self._boards[_forked(partial(work, folder, first, seed, board, own))] = board

    def wait(self) -> list[str]:
        """Until all have ended, or Ctrl-C ends them; say how far they are. What was fatal to a process, in words."""
        began, running = time.monotonic(), set(self._boards)
        fatal: list[str] = []
        try:
            while running:
                running -= set(self._ended(running, fatal))
                self._tell(time.monotonic() - began)
                time.sleep(_NAP)
        except KeyboardInterrupt:
            for board in self._boards.values():
                board.stop[0] = 1
            for pid in running:
                os.waitpid(pid, 0)
        self._tell(time.monotonic() - began)
        total = self._before + sum(board.numbers[0] for board in self._boards.values())
        self._state.write_text(json.dumps({"inputs": total}), encoding="ascii")
        sys.stderr.write("\n")
        return fatal

    def _ended(self, running: set[int], fatal: list[str]) -> Iterator[int]:
        for pid in running:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found and status:
                path = corpus.write(self._folder / "crashes", self._boards[pid].last)
                fatal.append(f"{path}: the process ends with status {status}\n{loads(self._boards[pid].last)}")
            if found:
                yield pid

    def _tell(self, seconds: float) -> None:
        numbers = [board.numbers for board in self._boards.values()]
        inputs, (_, reached, kept, violations) = sum(one[0] for one in numbers), map(max, zip(*numbers, strict=True))
        rate = inputs / max(seconds, 1)
        sys.stderr.write(
            f"\r{self._before + inputs} inputs, {rate:.0f} a second, {reached} edges and answers, {kept} kept, "
            f"{violations} violations "
        )
        sys.stderr.flush()


def _forked(call: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            call()
        except BaseException:  # noqa: BLE001 - it must not come back into what it was forked from
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def violations(folder: Path) -> Sequence[tuple[Path, str]]:
    """Those found in a folder so far: the input, and what it violates and is."""
    return [
        (path.with_suffix(".bin"), path.read_text(encoding="utf-8")) for path in sorted(folder.glob("crashes/*.txt"))
    ]
