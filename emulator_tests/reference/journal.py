"""What was done to the linked helper and the reference, and what memory looked like then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from emulator_tests.reference.beside import Beside, Reference
from mh_emulator.cpu.rdrand import Fault

Pages = dict[tuple[str, int], bytes]
"""By what they are of, and their number."""


@dataclass
class Entry:
    """Something that was done to a reference, and the pages that were others afterwards."""

    do: Callable[[Reference], None]
    changed: Pages = field(default_factory=dict)


class Journal(Beside):
    """Both, and all that is done to them; `last` is all memory at the end."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.last: Pages = {}
        super().__init__()

    def _same(self, what: str, linked: Iterator[bytes], reference: Iterator[bytes]) -> None:
        """As always; and what has changed is noted."""
        pages = list(linked)
        super()._same(what, iter(pages), reference)
        changed = {(what, number): page for number, page in enumerate(pages) if self.last.get((what, number)) != page}
        self.last |= changed
        if self.entries:
            self.entries[-1].changed |= changed

    def run(self, number: int) -> None:
        """As always, noted."""
        self._note(lambda to: to.helper.vcpus[number].run())
        super().run(number)

    def begin(self, number: int) -> None:
        """As always, noted."""
        self._note(lambda to: to.helper.vcpus[number].start())
        super().begin(number)

    def guest_writes(self, page: int, data: bytes) -> None:
        """As always, noted."""
        self._note(lambda to: to.write(page, data))
        super().guest_writes(page, data)

    def break_generators(self, fault: Fault | None) -> None:
        """As always, noted."""
        self._note(lambda to: setattr(to.generator, "fault", fault))
        super().break_generators(fault)

    def write_raw(self, offset: int, data: bytes) -> None:
        """As always, noted."""
        self._note(lambda to: to.helper.shared.write_raw(offset, data))
        super().write_raw(offset, data)

    def _note(self, do: Callable[[Reference], None]) -> None:
        self.entries.append(Entry(do))


def memory(of: Reference) -> Pages:
    """All that is compared."""
    parts: dict[str, Iterable[bytes]] = {"shared": of.read_shared(), "guest": of.read()}
    return {(what, number): page for what, part in parts.items() for number, page in enumerate(part)}


def replayed(journal: Journal) -> bool:
    """Whether a new reference, as the code is now, does the same all along."""
    reference = Reference()
    for entry in journal.entries:
        entry.do(reference)
        if any(reference.read_page(*place) != page for place, page in entry.changed.items()):
            return False
    return memory(reference) == journal.last
