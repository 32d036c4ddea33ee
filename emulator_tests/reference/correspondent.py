"""The third party: the other side of a session of the linked helper and of the reference, and what it sends them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from emulator_tests.helper.conftest import SECRET
from emulator_tests.reference.hello import Hello
from emulator_tests.reference.lane import Lane
from mh_abi import abi
from mh_emulator.host.ring import Sealed
from mh_emulator.peer import SessionKeys, hello_tag, session_keys

Kind = abi.mh_kind
Role = abi.mh_role
PAGE = abi.MH_PAGE_BYTES
DATA = "data"
TAG = "tag"


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong: `delta` is added to a field; the sender has said so if it `is_meant`, else the host has."""

    field: str
    delta: int
    is_meant: bool

    def changed(self, data: bytes, kind: type[abi.mh_packet | abi.mh_hello]) -> bytes:
        """`data`, which is a structure of that kind, with the first word of the field changed."""
        field = kind.fields[self.field]
        size = min(len(field.type), 8)
        value = int.from_bytes(data[field.offset : field.offset + size], "little") + self.delta
        word = (value % (1 << 8 * size)).to_bytes(size, "little")
        return data[: field.offset] + word + data[field.offset + size :]


class Correspondent:
    """One side of any number of sessions, whose numbers are drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._own = self._new()
        self._sent = b""
        self.keys = SessionKeys(self._random.randbytes(abi.MH_KEY_BYTES), abi.MH_PROTOCOL_HIGH)
        """Of the session that began last; before the first one those of none."""

    def greet(self, damage: Damage | None = None) -> bytes:
        """A new hello, of which something may be wrong."""
        self._own = self._new()
        hello = self._own.dumps()
        if damage is not None:
            hello = damage.changed(hello, abi.mh_hello)
            body = hello[: abi.MH_HELLO_MAC_BYTES]
            hello = body + hello_tag(SECRET, body) if damage.is_meant else hello
        self._sent = hello
        return hello

    def greet_without_share(self) -> bytes:
        """A hello whose share is 0."""
        hello = abi.mh_hello(self.greet())
        hello.share = [0] * abi.MH_SHARE_BYTES
        body = hello.dumps()[: abi.MH_HELLO_MAC_BYTES]
        return body + hello_tag(SECRET, body)

    def begin(self, peer: bytes, role: int, streams: int) -> None:
        """A session has begun with the helper whose hello is `peer`, and who has `role`."""
        hellos = (peer, self._sent) if role == Role.MH_ROLE_SOURCE else (self._sent, peer)
        self.keys = session_keys(SECRET, *hellos, self._own.exchange(peer), streams)

    def seal(self, header: abi.mh_packet, plain: bytes, damage: Damage | None) -> Sealed:
        """What this side sends under `header`, and what becomes of it."""
        packet = header.dumps()
        if damage is not None and damage.is_meant and damage.field not in (DATA, TAG):
            packet = damage.changed(packet, abi.mh_packet)
        fields = {name: getattr(abi.mh_packet(packet), name) for name in abi.mh_packet.fields if name != TAG}
        packet, data = self.keys.stream(header.stream).seal(plain, **fields)
        if damage is None or (damage.is_meant and damage.field != DATA):
            return Sealed(packet, data)
        if damage.field == DATA:
            return Sealed(packet, bytes(byte ^ 1 for byte in data[:1]) + data[1:])
        return Sealed(damage.changed(packet, abi.mh_packet), data)

    def header(self, lane: Lane, epoch: int, **fields: Any) -> abi.mh_packet:
        """That of the packet that a lane waits for; `fields` are what is in it besides."""
        return abi.mh_packet(
            magic=abi.MH_PACKET_MAGIC,
            version=self.keys.protocol,
            stream=lane.stream,
            sequence=lane.sequence,
            epoch=epoch,
            session=list(self.keys.identity),
            **fields,
        )

    def contents(self, pages: int) -> bytes:
        """New contents of pages."""
        return self._random.randbytes(pages * PAGE)

    def _new(self) -> Hello:
        return Hello(SECRET, self._random.randbytes(abi.MH_NONCE_BYTES), self._random.randbytes(abi.MH_KEY_BYTES))
