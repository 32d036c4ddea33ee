"""Post-copy: the guest runs at the target while its private pages still come, each at the latest when it needs it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from mh_emulator.host.bulk import CHUNK, move_batches
from mh_emulator.host.look import are_equal
from mh_emulator.host.machine import Machine
from mh_emulator.host.session import Batch, connect, finish, resume, runs
from mh_emulator.kvm.exits import Exit, Reason


class PostCopy:
    """The pages at these `ram_addr` of a guest that is stopped for good at `source`, and has not begun at `target`.

    From here on neither helper moves a page twice. Raises `HelperRefused`, `HelperStopped`.
    """

    def __init__(self, source: Machine, target: Machine, pages: Sequence[int]) -> None:
        self._source, self._target = source, target
        self._rings = source.start_helper(), target.start_helper()
        connect(*self._rings)
        for ring in self._rings:
            resume([ring])
        self._missing = set(pages)
        self._order = iter(sorted(pages))
        self._pages = len(pages)
        self.demanded = 0
        """Pages that have come because the guest needed them."""
        self.equal = True
        """Whether the target's guest saw in every page that has come what the source's saw, before it went on."""
        target.memory.discard(self._missing)
        topology = target.placement.topology
        target.vm.await_pages(topology.gpa(page) for page in pages)

    def run_guest(self) -> Exit:
        """KVM_RUN at the target, until something else than what the guest says of itself, or a page that it needs."""
        while True:
            exit_ = self._target.run_guest()
            if exit_.reason is not Reason.MEMORY_FAULT:
                return exit_
            self._demand(self._target.placement.topology.ram_addr(exit_.gpa))
            self._push(CHUNK)

    def finish(self) -> None:
        """Have all that is left come, and both helpers agree how much that was. Raises `HelperRefused`."""
        self._push(len(self._missing))
        total = finish(*self._rings)
        self.equal &= total == self._pages and not self._missing

    def _demand(self, page: int) -> None:
        """On the urgent lane, which is looked at between any two chunks of bulk work."""
        source, target = self._rings
        move_batches((source.urgent, target.urgent), [Batch(address=self._source.request_address(page), count=1)])
        self.demanded += 1
        self._arrived([page])

    def _push(self, most: int) -> None:
        """Up to so many of those that nobody has asked for."""
        pages = list(islice((page for page in self._order if page in self._missing), most))
        move_batches(self._rings, runs([self._source.request_address(page) for page in pages], CHUNK))
        self._arrived(pages)

    def _arrived(self, pages: Sequence[int]) -> None:
        self.equal &= are_equal(self._source, self._target, pages)
        topology = self._target.placement.topology
        self._missing.difference_update(pages)
        self._target.vm.absent.difference_update(topology.gpa(page) for page in pages)
