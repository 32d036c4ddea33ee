"""Plays a script on a file: changes it, and has everything read it that reads such files."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from emulator_tests.fuzz.lines import Lines
from emulator_tests.fuzz.script import KINDS_OF, Script, Step
from emulator_tests.fuzz.stage import Violation
from emulator_tests.fuzz.subjects import Subject
from mh_abi.errors import MigrationHelperError
from mh_builder.firmware.compressed import _decoded

SECONDS = 20.0
"""Of CPU time that all readers together may take."""
_MOST_BYTES = 4 << 20
"""How far a file may grow."""


class TooLongError(BaseException):
    """Not caught by anything that a reader may do."""


class FileStage:
    """A file and its readers."""

    def __init__(self, name: str, subject: Subject) -> None:
        self.code = name
        self.subject = subject
        self.lines = Lines()

        self._warm()

    def reset(self) -> None:
        """Count from 0, and know nothing of an earlier file."""
        _decoded.cache_clear()
        self.lines.clear()

    def _warm(self) -> None:
        """Have done what is done once in a process, so that it is never counted."""
        for read in self.subject.readers(self.subject.data):
            with suppress(Exception, TooLongError), limited(SECONDS):
                read()


class FilePlayer:
    """One script's way through it."""

    def __init__(self, stage: FileStage) -> None:
        self._stage = stage
        self._data = bytearray(stage.subject.data)
        self._sealed = True

    @property
    def counts(self) -> bytes:
        """Of each slot of lines."""
        return bytes(self._stage.lines.counts)

    def play(self, script: Script) -> None:
        """Take all steps, and read. Raises `Violation`."""
        self.change(script)
        stage = self._stage
        try:
            with limited(SECONDS), stage.lines.counted():
                self._read()
        except TooLongError:
            raise Violation(f"is not done within {SECONDS:g} seconds of CPU time") from None

    def change(self, script: Script) -> None:
        """Take all steps."""
        for step in script.steps:
            if step.kind in KINDS_OF["file"]:
                getattr(self, f"_{step.kind}")(step)
            del self._data[_MOST_BYTES:]

    def file(self) -> bytes:
        """What is to be read, with its checksums unless a step says otherwise; may raise what readers may."""
        data = bytes(self._data)
        return self._stage.subject.seal(data) if self._sealed else data

    def _read(self) -> None:
        try:
            every = self._stage.subject.readers(self.file())
        except MigrationHelperError as error:
            self._refuses(error)
            return
        for read in every:
            self._try(read)

    def _try(self, read: Callable[[], object]) -> None:
        try:
            read()
        except MigrationHelperError as error:
            self._refuses(error)

    @staticmethod
    def _refuses(error: MigrationHelperError) -> None:
        text = str(error)
        if not text or "\n" in text:
            raise Violation(f"refuses with {text!r}, which is not one line")

    # ---- steps ----

    def _place(self, step: Step) -> int:
        spots = self._stage.subject.spots
        start, size = spots[step.number("spot") % len(spots)]
        return start + step.number("offset") % max(size, 1)

    def _field(self, step: Step) -> None:
        """A number somewhere in a spot."""
        at, width, value = self._place(step), step.number("width"), step["value"]
        old = int.from_bytes(self._data[at : at + width], "little")
        size = len(self._data)
        if isinstance(value, str):
            value = {
                "+1": old + 1, "-1": old - 1, "+8": old + 8, "+4096": old + 4096, "twice": 2 * old, "not": ~old,
                "size": size, "size - 1": size - 1, "size + 1": size + 1, "half": size // 2, "here": at,
            }[value]  # fmt: skip
        self._put(at, (value % (1 << 8 * width)).to_bytes(width, "little"))

    def _raw(self, step: Step) -> None:
        """Bytes somewhere in a spot."""
        data = bytes(step.number(f"byte {number}") for number in range(8))
        self._put(self._place(step), data[: step.number("width")])

    def _copy(self, step: Step) -> None:
        """What lies in one spot, into another."""
        spots = self._stage.subject.spots
        start, size = spots[step.number("from") % len(spots)]
        self._put(self._place(step), bytes(self._data[start : start + size]))

    def _cut(self, step: Step) -> None:
        """The end away, or what lies before it, or some bytes in between."""
        at = self._place(step)
        first, behind = {
            "end": (at, len(self._data)), "start": (0, at), "eight": (at, at + 8), "page": (at, at + 4096),
        }[str(step["what"])]  # fmt: skip
        del self._data[first:behind]

    def _grow(self, step: Step) -> None:
        """Some bytes more, at the end or in a spot."""
        more = bytes([step.number("fill")]) * (1 << step.number("bits"))
        at = self._place(step) if step["where"] == "spot" else len(self._data)
        self._data[at:at] = more

    def _seal(self, step: Step) -> None:
        """Whether checksums are mended at the end."""
        self._sealed = step["how"] == "right"

    def _put(self, at: int, data: bytes) -> None:
        at = min(at, max(len(self._data) - len(data), 0))
        self._data[at : at + len(data)] = data


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TooLongError` inside after so much CPU time."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
