"""A hostile kernel at VMPL1 of an SNP guest, whose helper is at VMPL0."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_compare.guest_os import DATA
from mh_compare.outcome import INSTRUCTIONS, Ended, by_exit
from mh_compare.snp_arena import SnpArena, SnpSide


class Vmpl1:
    """The kernel of the guest of `side`, which maps the helper's pages with every right of its own tables.

    Its vCPU begins once, by the VMSA that the owner has launched. A helper lets it begin outside of a session.
    """

    def __init__(self, arena: SnpArena, side: SnpSide) -> None:
        self._kernel = arena.kernel
        self._side = side
        side.machine.start_guest()

    def run(self, text: str, data: bytes = b"") -> bytes:
        """Run code with `data` at `DATA` until it halts; return the page that it has there then.

        Raises `Ended` for any other end.
        """
        for gpa, piece in self._kernel.memory(text, data):
            self._side.write(gpa, piece)
        outcome = by_exit(self._side.machine.run_guest(INSTRUCTIONS), None)
        if outcome is not None:
            raise Ended(outcome)
        return self._side.machine.read_pages([DATA])[:PAGE_BYTES]
