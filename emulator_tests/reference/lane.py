"""A lane: one queue of a ring, and its stream, as the helper has them."""

from __future__ import annotations

from emulator_tests.reference.shared import Shared
from mh_abi import abi
from mh_emulator.host.ring import LaneLayout
from mh_emulator.peer import StreamKeys

PACKET = abi.MH_PACKET_AAD_BYTES + abi.MH_TAG_BYTES


class Lane:
    """The queue at `layout` of the ring at `offset` of `shared`; its stream has the number `stream`."""

    def __init__(self, shared: Shared, offset: int, layout: LaneLayout, stream: int, slots: int) -> None:
        self.layout = layout
        self.stream = stream
        self.slots = slots
        self.head = 0
        self.sequence = 0
        """Of the next packet."""
        self.keys: StreamKeys | None = None
        self._shared = shared
        self._offset = offset

    @property
    def is_urgent(self) -> bool:
        """Whether it is the urgent one of its ring."""
        return self.stream & abi.MH_STREAM_URGENT != 0

    @property
    def waiting(self) -> int:
        """Submissions that the host says it has made, and that are not completed."""
        tail = int.from_bytes(self._read(self.layout.tail, 4), "little")
        return (tail - self.head) % (1 << 32)

    def begin(self, keys: StreamKeys) -> None:
        """A session begins on the stream."""
        self.keys = keys
        self.sequence = 0

    def fetch(self) -> abi.mh_submission:
        """The next submission; its completion has but what it echoes."""
        place = self.layout.submissions + self._index * len(abi.mh_submission)
        entry = abi.mh_submission(self._read(place, len(abi.mh_submission)))
        self._put_completion(abi.mh_completion(op=entry.op, cookie=entry.cookie))
        return entry

    def complete(self, completion: abi.mh_completion) -> None:
        """Answer the submission that was fetched last."""
        self._put_completion(completion)
        self.head = (self.head + 1) % (1 << 32)
        self._write(self.layout.head, self.head.to_bytes(4, "little"))

    def listed(self, slot: int) -> int:
        """The address that the list has for a slot."""
        return int.from_bytes(self._read(self.layout.list + 8 * slot, 8), "little")

    def answer(self, slots: range, status: int, kind: int) -> None:
        """The results of these slots."""
        result = abi.mh_result(status=status, kind=kind).dumps()
        self._write(self.layout.results + slots.start * len(result), result * len(slots))

    def hello(self, slot: int) -> bytes:
        """The hello in the place of a packet."""
        return self._read(self._packet(slot), len(abi.mh_hello))

    def packet(self, slot: int) -> bytes:
        """The packet at a slot."""
        return self._read(self._packet(slot), PACKET)

    def data(self, slot: int, size: int) -> bytes:
        """`size` bytes of data from that of a slot on."""
        return self._read(self.layout.data + slot * abi.MH_PAGE_BYTES, size)

    def put_packet(self, slot: int, packet: bytes) -> None:
        """Write a packet, or a hello."""
        self._write(self._packet(slot), packet)

    def put_data(self, slot: int, data: bytes) -> None:
        """Write the data of a packet."""
        self._write(self.layout.data + slot * abi.MH_PAGE_BYTES, data)

    @property
    def _index(self) -> int:
        return self.head % self.layout.entries

    def _put_completion(self, completion: abi.mh_completion) -> None:
        self._write(self.layout.completions + self._index * len(abi.mh_completion), completion.dumps())

    def _packet(self, slot: int) -> int:
        return self.layout.packets + slot * abi.MH_PACKET_SLOT_BYTES

    def _read(self, offset: int, size: int) -> bytes:
        return self._shared.read_raw(self._offset + offset, size)

    def _write(self, offset: int, data: bytes) -> None:
        self._shared.write_raw(self._offset + offset, data)
