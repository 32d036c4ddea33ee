"""The session: what all rings of a helper share of it."""

from __future__ import annotations

from mh_emulator.peer import SessionKeys


class Session:
    """The session that is alive, or was last."""

    def __init__(self) -> None:
        self.generation = 0
        """Odd: a session is alive. Every start and every end counts it up."""
        self.key: SessionKeys | None = None
        """Until all rings have theirs, or the session ends."""
        self.role = 0
        self.streams = 0
        self.is_strict = False
        """This side is a source whose owner asks for a strict finish."""
        self.epoch = 0
        self._joined = 0
        self._ended = 0
        self._finished = 0
        self._pages = 0

    @property
    def is_alive(self) -> bool:
        """Whether a session has begun and not ended."""
        return self.generation % 2 == 1

    def begin(self, key: SessionKeys, role: int, streams: int, *, is_strict: bool) -> None:
        """A session of that many rings begins."""
        self.key, self.role, self.streams, self.is_strict = key, role, streams, is_strict
        self.epoch = self._joined = self._ended = self._finished = self._pages = 0
        self.generation += 1

    def end(self) -> None:
        """It is over for all rings, if there is one."""
        if self.is_alive:
            self.generation += 1
            self.key = None

    def joined(self) -> None:
        """A ring has made its keys; the last one wipes the key of them all."""
        self._joined += 1
        if self._joined == self.streams:
            self.key = None

    def ends_epoch(self) -> bool:
        """A ring has ended its epoch; whether it was the last one, with which the next begins."""
        self._ended += 1
        if self._ended < self.streams:
            return False
        self._ended = 0
        self.epoch += 1
        return True

    def finish(self, pages: int) -> int:
        """A ring has finished, with that many pages; return those of all that have. The last one ends the session."""
        self._finished += 1
        self._pages += pages
        if self._finished == self.streams:
            self.generation += 1
        return self._pages
