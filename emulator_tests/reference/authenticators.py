"""What was exported last of every page, for the finish of a strict source."""

from __future__ import annotations

from emulator_tests.reference.memory import PAGE, Memory


class Authenticators:
    """The streams and contents under which pages were sealed last, by their numbers in the maps."""

    def __init__(self) -> None:
        self._sealed: dict[int, tuple[int, bytes]] = {}

    def note(self, page: int, stream: int, contents: bytes) -> None:
        """A page was sealed on a stream."""
        self._sealed[page] = stream, contents

    def forget(self) -> None:
        """A new session begins."""
        self._sealed.clear()

    def are_right(self, memory: Memory, streams: tuple[int, ...]) -> bool:
        """Whether all pages that these streams sealed last are as they were."""
        return all(
            bytes(memory.bytes[page * PAGE : (page + 1) * PAGE]) == contents
            for page, (stream, contents) in self._sealed.items()
            if stream in streams
        )
