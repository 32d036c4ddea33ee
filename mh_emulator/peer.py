"""The other side of a helper in Python, with `cryptography` and the ABI header alone: hello, keys, packets.

Whoever holds the owner's secret can play it: the owner, and what is to be compared with the helper. Sources:
payload/abi.h; RFC 7748 (X25519), SP 800-38B (CMAC), SP 800-108r1 4.1 (key derivation), SP 800-38D (GCM).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from mh_abi import abi
from mh_emulator.secret import Secret


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """What both helpers derive for one stream."""

    page_key: bytes
    session: bytes
    stream: int
    protocol: int

    def open(self, packet: bytes, data: bytes) -> bytes:
        """Decrypt; raise `InvalidTag` where anything was changed, or of another session."""
        if bytes(abi.mh_packet(packet).session) != self.session:
            raise InvalidTag
        tag = packet[abi.MH_PACKET_AAD_BYTES :]
        return AESGCM(self.page_key).decrypt(_iv(packet), data + tag, packet[: abi.MH_PACKET_AAD_BYTES])

    def seal(self, plain: bytes, **fields: Any) -> tuple[bytes, bytes]:  # noqa: ANN401 - fields of a structure
        """Make a packet as a helper would: (packet, data). `fields` are those of `mh_packet`."""
        own: dict[str, Any] = {
            "magic": abi.MH_PACKET_MAGIC, "version": self.protocol, "kind": abi.mh_kind.MH_KIND_PAGE.value,
            "session": list(self.session), "stream": self.stream, "length": len(plain),
        }  # fmt: skip
        header = abi.mh_packet(**(own | fields)).dumps()[: abi.MH_PACKET_AAD_BYTES]
        sealed = AESGCM(self.page_key).encrypt(_iv(header), plain, header)
        return header + sealed[len(plain) :], sealed[: len(plain)]


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """A session's key, and what is made of it."""

    key: bytes
    protocol: int

    @property
    def identity(self) -> bytes:
        """The session's, as packets carry it."""
        return self._output(abi.MH_KDF_LABEL_IDENTITY, abi.MH_SESSION_BYTES, 0)

    def stream(self, number: int) -> StreamKeys:
        """The keys of a stream: a ring, or with MH_STREAM_URGENT its urgent lane."""
        return StreamKeys(self.page_key(number), self.identity, number, self.protocol)

    def page_key(self, number: int) -> bytes:
        """That of a stream alone."""
        return self._output(abi.MH_KDF_LABEL_PAGE, abi.MH_KEY_BYTES, number)

    def _output(self, label: str, size: int, stream: int) -> bytes:
        return derive(self.key, label, abi.mh_stream_context(stream=stream).dumps(), size)


def session_keys(secret: Secret, source: bytes, target: bytes, shared: bytes, streams: int = 1) -> SessionKeys:
    """The keys of a session between the helpers with these hellos; `shared` is their X25519 secret."""
    protocol = min(_highest(source), _highest(target))
    context = abi.mh_session_context(
        source=list(source[: abi.MH_HELLO_MAC_BYTES]),
        target=list(target[: abi.MH_HELLO_MAC_BYTES]),
        shared=list(shared),
        protocol=protocol,
        streams=streams,
    )
    return SessionKeys(derive(secret.key, abi.MH_KDF_LABEL_SESSION, context.dumps(), abi.MH_KEY_BYTES), protocol)


@lru_cache
def _highest(hello: bytes) -> int:
    """The highest protocol that a helper with that hello speaks."""
    return int(abi.mh_hello(hello).high)


class Peer:
    """One that greets with `fields` of `mh_hello` in the place of its own, and knows `secret`."""

    def __init__(self, secret: Secret, **fields: Any) -> None:  # noqa: ANN401 - fields of a structure
        self._secret = secret
        self._private = X25519PrivateKey.generate()
        self.hello = self._greeting(fields)

    def keys(self, role: int, peer: bytes, streams: int = 1) -> SessionKeys:
        """The keys of a session in which this side has `role`, with the helper whose hello is `peer`."""
        shared = self._private.exchange(X25519PublicKey.from_public_bytes(bytes(abi.mh_hello(peer).share)))
        hellos = (self.hello, peer) if role == abi.mh_role.MH_ROLE_SOURCE else (peer, self.hello)
        return session_keys(self._secret, *hellos, shared, streams)

    def _greeting(self, fields: dict[str, Any]) -> bytes:
        own: dict[str, Any] = {
            "magic": abi.MH_HELLO_MAGIC,
            "low": abi.MH_PROTOCOL_LOW,
            "high": abi.MH_PROTOCOL_HIGH,
            "addresses": abi.mh_address_kind.MH_ADDRESS_RAM.value,
            "protection": self._secret.protection,
            "flags": self._secret.flags,
            "guest": list(self._secret.guest),
            "nonce": list(os.urandom(abi.MH_NONCE_BYTES)),
            "share": list(self._private.public_key().public_bytes_raw()),
        }
        body: bytes = abi.mh_hello(**(own | fields)).dumps()[: abi.MH_HELLO_MAC_BYTES]
        return body + hello_tag(self._secret, body)


def hello_tag(secret: Secret, body: bytes) -> bytes:
    """The tag of a hello's other bytes."""
    context = bytes(len(abi.mh_stream_context))
    mac = CMAC(AES(derive(secret.key, abi.MH_KDF_LABEL_HELLO, context, abi.MH_KEY_BYTES)))
    mac.update(body)
    return mac.finalize()


def derive(key: bytes, label: str, context: bytes, size: int) -> bytes:
    """SP 800-108r1 4.1 with CMAC-AES256, as abi.h lays it out."""
    place = CounterLocation.BeforeFixed
    kdf = KBKDFCMAC(AES, Mode.CounterMode, size, 4, 4, place, label.encode("ascii"), context, None)
    return bytes(kdf.derive(key))


def _iv(packet: bytes) -> bytes:
    return packet[abi.MH_PACKET_IV_OFFSET : abi.MH_PACKET_IV_OFFSET + abi.MH_PACKET_IV_BYTES]
