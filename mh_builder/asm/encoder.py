"""Encodes single instructions in a watched worker process."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WORKER = Path(__file__).with_name("worker.py")
_BATCH = 64
"""Requests under way at once: few enough for both pipes to hold them and their answers."""
ANSWER_SECONDS = 5.0
START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One instruction with numbers for operands; `rewrites` name corrections of keystone's bytes."""

    mode: int
    text: str
    rewrites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoded:
    """What capstone reads back; offsets and sizes are in bytes, 0 where there is no such field."""

    mnemonic: str
    operands: str
    size: int
    displacement_offset: int
    immediate_offset: int
    immediate_size: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """The bytes of an instruction, or an error instead of them."""

    code: bytes
    decoded: tuple[Decoded, ...]
    error: str = ""


class Encoder:
    """Asks a worker process and remembers the answers."""

    def __init__(self, command: Sequence[str], answer_seconds: float) -> None:
        """Prepare to run `command`; an answer that takes longer than `answer_seconds` is a hang."""
        self._command = tuple(command)
        self._answer_seconds = answer_seconds
        self._memory: dict[Request, Encoding] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._pending = b""
        self._answered = False

    def start(self) -> None:
        """Start the worker, if it is not running, without waiting for it."""
        if self._process is not None and self._owner == os.getpid():
            if self._process.poll() is None:
                return
            self.close()
        self._owner, self._pending, self._answered = os.getpid(), b"", False
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    def close(self) -> None:
        """End the worker; the next request starts another."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def encode(self, requests: Iterable[Request]) -> dict[Request, Encoding]:
        """Answer every request; what the worker dies or hangs of becomes an error of that request."""
        wanted = list(dict.fromkeys(requests))
        missing = [request for request in wanted if request not in self._memory]
        while missing:
            answers = self._batch(missing[:_BATCH])
            self._memory.update(answers)
            missing = missing[len(answers) :]
        return {request: self._memory[request] for request in wanted}

    def _batch(self, batch: list[Request]) -> dict[Request, Encoding]:
        self.start()
        answers: dict[Request, Encoding] = {}
        try:
            self._send(batch)
            for request in batch:
                answers[request] = _encoding(json.loads(self._line()))
        except _WorkerError as error:
            answers[batch[len(answers)]] = Encoding(b"", (), str(error))
            self._kill()
        except BaseException:
            # Answers that nobody reads would be taken for those of the next batch.
            self._kill()
            raise
        return answers

    def _send(self, batch: list[Request]) -> None:
        text = "".join(json.dumps([request.mode, request.rewrites, request.text]) + "\n" for request in batch)
        if self._process is None or self._process.stdin is None:
            raise _WorkerError("the encoder could not be started")
        try:
            self._process.stdin.write(text.encode())
        except BrokenPipeError as error:
            raise _WorkerError("the encoder died of this instruction") from error

    def _line(self) -> bytes:
        while b"\n" not in self._pending:
            self._pending += self._read()
        line, _, self._pending = self._pending.partition(b"\n")
        self._answered = True
        return line

    def _read(self) -> bytes:
        if self._process is None or self._process.stdout is None:
            raise _WorkerError("the encoder could not be started")
        deadline = time.monotonic() + (self._answer_seconds if self._answered else START_SECONDS)
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(deadline - time.monotonic()):
                raise _WorkerError("the encoder hangs on this instruction")
        chunk = os.read(self._process.stdout.fileno(), 1 << 16)
        if not chunk:
            raise _WorkerError("the encoder died of this instruction")
        return chunk

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self.close()


class _WorkerError(Exception):
    """The worker did not answer."""


def _encoding(answer: dict[str, Any]) -> Encoding:
    if "error" in answer:
        return Encoding(b"", (), answer["error"])
    decoded = tuple(Decoded(*item) for item in answer["decoded"])
    return Encoding(bytes.fromhex(answer["code"]), decoded)


shared = Encoder((sys.executable, "-P", str(_WORKER)), ANSWER_SECONDS)
"""This process's encoder; it starts its worker with the first instruction."""

atexit.register(shared.close)
