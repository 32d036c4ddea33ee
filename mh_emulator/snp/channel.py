"""A guest's end of the channel to the secure processor: it reads its key in the secrets page, and counts messages.

Source: Linux, drivers/virt/coco/sev-guest/sev-guest.c; the formats are `mh_emulator.psp.snp.message`.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp.context import KEY_BYTES
from mh_emulator.psp.snp.message import HEADER_BYTES, Header, MessageType, seal, unseal
from mh_emulator.psp.snp.requests import GuestRequest
from mh_emulator.psp.snp.secrets import VMPCK_OFFSET
from mh_emulator.psp.status import Status
from mh_emulator.snp.host import SECRETS_GPA, Launched, SnpHost

_UNIT = 16


class BadAnswerError(Exception):
    """What came back is no answer of the secure processor to this message."""


class Mailbox(ABC):
    """One VMPCK of a guest, whose messages a host carries."""

    key: bytes
    vmpck: int
    count: int
    """Messages so far, both ways."""

    @abstractmethod
    def carry(self, message: bytes) -> bytes:
        """Have the host hand a message over, and return the page of the answer. Raises `CommandError`."""

    def seal(self, kind: MessageType, payload: bytes) -> bytes:
        """The next message."""
        body = payload.ljust(-(-len(payload) // _UNIT) * _UNIT, b"\0")
        return seal(self.key, Header(self.count + 1, kind, len(body), self.vmpck), body)

    def open(self, kind: MessageType, page: bytes) -> tuple[Status, bytes]:
        """The status in the answer to the last message, which was of `kind`, and the answer.

        Raises `BadAnswerError`.
        """
        clear = page[:HEADER_BYTES]
        header = Header.parse(clear)
        answer = unseal(self.key, clear, page[HEADER_BYTES : HEADER_BYTES + header.size])
        if answer is None or (header.seqno, header.kind) != (self.count + 2, kind + 1):
            raise BadAnswerError(f"answer {header.kind:#x} with number {header.seqno}, expected {kind + 1:#x}")
        self.count += 2
        return Status(struct.unpack_from("<I", answer)[0]), answer

    def ask(self, kind: MessageType, payload: bytes) -> tuple[Status, bytes]:
        """Send a request; return the status in its answer, and the answer. Raises `CommandError`, `BadAnswerError`."""
        return self.open(kind, self.carry(self.seal(kind, payload)))


@dataclass(slots=True)
class Channel(Mailbox):
    """One VMPCK of a guest, on one host."""

    host: SnpHost
    gctx: int
    key: bytes = field(repr=False)
    vmpck: int = 0
    count: int = 0

    @classmethod
    def of(cls, host: SnpHost, guest: Launched, vmpck: int = 0) -> Channel:
        """The channel whose key the guest finds in its secrets page."""
        offset = VMPCK_OFFSET + vmpck * KEY_BYTES
        key = host.dram.read_private(guest.asid, guest.pages[SECRETS_GPA] + offset, KEY_BYTES)
        return cls(host, guest.gctx, key, vmpck)

    def carry(self, message: bytes) -> bytes:
        """Have the host hand a message over, and return the page of the answer. Raises `CommandError`."""
        request, response = self.host.page(message), self.host.donate()
        self.hand_over(request, response)
        return self.host.dram.read_raw(response, PAGE_BYTES)

    def hand_over(self, request: int, response: int) -> None:
        """Have the host hand over the message in one page, for an answer in another one. Raises `CommandError`."""
        self.host.psp.guest_request(GuestRequest(self.gctx, request, response))
