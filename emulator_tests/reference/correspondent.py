"""The third party: the other side of a session of the linked helper and of the reference, and what it sends them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emulator_tests.helper.conftest import SECRET
from emulator_tests.reference.hello import Hello
from emulator_tests.reference.lane import Lane
from mh_abi import abi
from mh_emulator.host.ring import Sealed
from mh_emulator.peer import SessionKeys, hello_tag, session_keys
from mh_emulator.secret import Secret

Kind = abi.mh_kind
Role = abi.mh_role
PAGE = abi.MH_PAGE_BYTES
DATA = "data"
TAG = "tag"
HOSTS = frozenset({DATA, TAG})


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong: a number is added to each of some fields. Who makes it has meant that, or else it is the host's.

    Data and tag are always the host's.
    """

    deltas: Mapping[str, int]
    is_meant: bool

    def of_packet(self, packet: bytes) -> bytes:
        """A packet of which these fields are others."""
        return self._of(packet, abi.mh_packet, HOSTS)

    def of_hello(self, hello: bytes) -> bytes:
        """A hello of which these fields are others."""
        changed = self._of(hello, abi.mh_hello, frozenset())
        return tagged(changed) if self.is_meant else changed

    def of_sealed(self, sealed: Sealed) -> Sealed:
        """What the host makes of a packet."""
        packet, data = sealed.packet, sealed.data
        if TAG in self.deltas:
            packet = packet[:-1] + bytes([packet[-1] ^ 1])
        if DATA in self.deltas:
            data = bytes(byte ^ 1 for byte in data[:1]) + data[1:]
        return Sealed(packet if self.is_meant else self.of_packet(packet), data)

    def _of(self, data: bytes, kind: type[abi.mh_packet | abi.mh_hello], but: frozenset[str]) -> bytes:
        for name in self.deltas.keys() - but:
            field = kind.fields[name]
            size = min(len(field.type), 8)
            value = int.from_bytes(data[field.offset : field.offset + size], "little") + self.deltas[name]
            word = (value % (1 << 8 * size)).to_bytes(size, "little")
            data = data[: field.offset] + word + data[field.offset + size :]
        return data


NO_DAMAGE = Damage({}, is_meant=True)


def tagged(hello: bytes) -> bytes:
    """A hello with the tag that belongs to it."""
    body = hello[: abi.MH_HELLO_MAC_BYTES]
    return body + hello_tag(SECRET, body)


class Correspondent:
    """One side of any number of sessions, with the owner's secret; its numbers are drawn from a seed."""

    def __init__(self, secret: Secret, seed: int) -> None:
        self._secret = secret
        self._random = random.Random(seed)
        self._own = self._new()
        self._sent = b""
        self.keys = SessionKeys(self._random.randbytes(abi.MH_KEY_BYTES), abi.MH_PROTOCOL_HIGH)
        """Of the session that began last; before the first one those of none."""

    def greet(self, damage: Damage = NO_DAMAGE) -> bytes:
        """A new hello, of which something may be wrong."""
        self._own = self._new()
        self._sent = damage.of_hello(self._own.dumps())
        return self._sent

    def greet_without_share(self) -> bytes:
        """A hello whose share is 0."""
        hello = abi.mh_hello(self.greet())
        hello.share = [0] * abi.MH_SHARE_BYTES
        return tagged(hello.dumps())

    def begin(self, peer: bytes, role: int, streams: int) -> None:
        """A session has begun with the helper whose hello is `peer`, and who has `role`."""
        hellos = (peer, self._sent) if role == Role.MH_ROLE_SOURCE else (self._sent, peer)
        self.keys = session_keys(self._secret, *hellos, self._own.exchange(peer), streams)

    def seal(self, header: abi.mh_packet, plain: bytes, damage: Damage = NO_DAMAGE) -> Sealed:
        """What this side sends under `header`, and what becomes of it."""
        packet = damage.of_packet(header.dumps()) if damage.is_meant else header.dumps()
        meant = abi.mh_packet(packet)
        fields = {name: getattr(meant, name) for name in abi.mh_packet.fields if name != TAG}
        return damage.of_sealed(Sealed(*self.keys.stream(header.stream).seal(plain, **fields)))

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
        return Hello(self._secret, self._random.randbytes(abi.MH_NONCE_BYTES), self._random.randbytes(abi.MH_KEY_BYTES))
