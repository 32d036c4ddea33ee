"""What was done to the linked helper and the reference, and what memory looked like then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emulator_tests.reference.beside import Beside, Reference
from emulator_tests.reference.terms import PLAIN, Terms
from mh_emulator.cpu.rdrand import Fault

Changes = dict[str, dict[int, bytes]]
"""Of "shared" and "guest" the pages that are others, by number."""


@dataclass
class Entry:
    """Something that was done to a reference, and the pages that were others afterwards."""

    do: Callable[[Reference], None]
    changed: Changes = field(default_factory=dict)


class Journal(Beside):
    """Both, and all that is done to them; `last` is all memory at the end."""

    def __init__(self, terms: Terms = PLAIN) -> None:
        self.entries: list[Entry] = []
        self.last: dict[str, list[bytes]] = {}
        super().__init__(terms)

    def _same(self, what: str, linked: list[bytes], reference: list[bytes]) -> None:
        """As always; and what has changed is noted."""
        super()._same(what, linked, reference)
        before = self.last.get(what, [])
        if before != linked and self.entries:
            self.entries[-1].changed[what] = {
                number: page for number, page in enumerate(linked) if before[number] != page
            }
        self.last[what] = linked

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


def replayed(journal: Journal) -> bool:
    """Whether a new reference, as the code is now, does the same all along."""
    reference = Reference(journal.terms)
    for entry in journal.entries:
        entry.do(reference)
        for what, pages in entry.changed.items():
            if any(reference.read_page(what, number) != page for number, page in pages.items()):
                return False
    return journal.last == {"shared": reference.read_shared(), "guest": reference.read()}
