"""Sessions of both helpers with a third party, for tests that know what they ask for."""

from __future__ import annotations

from emulator_tests.reference.beside import Beside
from emulator_tests.reference.correspondent import Correspondent
from emulator_tests.reference.lane import Lane
from emulator_tests.reference.terms import PLAIN, Terms
from mh_abi import abi
from mh_emulator.host import ring
from mh_emulator.host.ring import Completion, Request
from mh_emulator.host.session import Batch, begin, greet, join

Kind = abi.mh_kind
Op = abi.mh_op
Role = abi.mh_role
PAGE = abi.MH_PAGE_BYTES

BULK, URGENT = 0, 1


class Scene:
    """Both, in a session of `streams` rings in `role`; all rings have joined."""

    def __init__(self, role: int, streams: int = 1, terms: Terms = PLAIN) -> None:
        self.both = Beside(terms)
        self.peer = Correspondent(terms.secret, 1)
        self.connect(role, streams)

    def connect(self, role: int, streams: int = 1) -> None:
        """Begin a session; there is none."""
        ours = greet(self.both.rings[0])
        begin(self.both.rings[0], role, self.peer.greet(), streams)
        self.peer.begin(ours, role, streams)
        for other in self.both.rings[1:streams]:
            join(other)

    def lanes(self, number: int, urgent: int = BULK) -> tuple[ring.Lane, Lane]:
        """The host's side of a lane, and the helper's."""
        host = self.both.rings[number]
        return host.urgent if urgent else host, self.both.reference.helper.vcpus[number].lanes[urgent]

    def ask(self, number: int, op: int) -> Completion:
        """One operation without fields."""
        return self.both.rings[number].serve([Request(op)])[0]

    def move(self, number: int, op: int, batch: Batch, urgent: int = BULK) -> Completion:
        """EXPORT, SHARE, or IMPORT of what lies in the slots."""
        return batch.submit(self.lanes(number, urgent)[0], op)

    def put(self, number: int, batch: Batch, urgent: int = BULK) -> None:
        """The packets that the helper waits for, into the slots of `batch`."""
        host, lane = self.lanes(number, urgent)
        for place, slot in enumerate(batch.packet_slots()):
            address = batch.listed[place] if batch.listed else batch.address + slot * PAGE
            pages = min(batch.chunk, batch.pages - slot)
            header = self.header(number, lane, kind=Kind.MH_KIND_PAGE.value, length=pages * PAGE, address=address)
            header.sequence += place
            host.put_sealed(slot, self.peer.seal(header, self.peer.contents(pages)))

    def put_end(self, number: int, kind: int, **fields: int) -> None:
        """The packet that ends something, as the helper waits for it but for `fields`."""
        host, lane = self.lanes(number)
        part = self.both.reference.helper.vcpus[number].part
        pages = part.epoch_pages if kind == Kind.MH_KIND_EPOCH else part.pages
        urgent = self.lanes(number, URGENT)[1].sequence
        wanted = {"kind": kind, "address": pages, "urgent": urgent} | fields
        host.put_sealed(0, self.peer.seal(self.header(number, lane, **wanted), b""))

    def header(self, number: int, lane: Lane, **fields: int) -> abi.mh_packet:
        """Of the packet that a lane waits for."""
        return self.peer.header(lane, self.both.reference.helper.vcpus[number].part.epoch, **fields)
