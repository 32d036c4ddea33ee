"""Hellos: ours, and what is wrong with that of a peer."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mh_abi import abi
from mh_emulator.peer import SessionKeys, hello_tag, session_keys
from mh_emulator.secret import Secret

Role = abi.mh_role
Status = abi.mh_status

PROTECTION = abi.mh_protection.MH_PROTECTION_SEV.value
"""Of start `host`."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a helper with `secret` says of itself before a session."""

    secret: Secret
    nonce: bytes
    scalar: bytes

    def dumps(self) -> bytes:
        """The 128 bytes in the ring."""
        share = X25519PrivateKey.from_private_bytes(self.scalar).public_key()
        hello = abi.mh_hello(
            magic=abi.MH_HELLO_MAGIC,
            low=abi.MH_PROTOCOL_LOW,
            high=abi.MH_PROTOCOL_HIGH,
            addresses=abi.mh_address_kind.MH_ADDRESS_RAM.value,
            protection=PROTECTION,
            flags=self.secret.flags,
            guest=list(self.secret.guest),
            nonce=list(self.nonce),
            share=list(share.public_bytes_raw()),
        )
        body = hello.dumps()[: abi.MH_HELLO_MAC_BYTES]
        return body + hello_tag(self.secret, body)

    def refusal(self, peer: bytes, role: int) -> abi.mh_status:
        """Why this side, in `role`, starts no session with the helper whose hello is `peer`."""
        hello = abi.mh_hello(peer)
        body, tag = peer[: abi.MH_HELLO_MAC_BYTES], peer[abi.MH_HELLO_MAC_BYTES :]
        return (
            _form_refusal(hello)
            or self._terms_refusal(hello, role)
            or (Status.MH_BAD_HELLO if tag != hello_tag(self.secret, body) else Status.MH_DONE)
            or (Status.MH_BAD_NONCE if bytes(hello.nonce) == self.nonce else Status.MH_DONE)
        )

    def agree(self, peer: bytes, role: int, streams: int) -> SessionKeys | None:
        """The keys of a session with `peer`; None where its share gives no secret."""
        try:
            shared = self.exchange(peer)
        except ValueError:
            return None
        hellos = (self.dumps(), peer) if role == Role.MH_ROLE_SOURCE else (peer, self.dumps())
        return session_keys(self.secret, *hellos, shared, streams)

    def exchange(self, peer: bytes) -> bytes:
        """RFC 7748 with the share of `peer`. Raises `ValueError` where that gives no secret."""
        share = X25519PublicKey.from_public_bytes(bytes(abi.mh_hello(peer).share))
        return X25519PrivateKey.from_private_bytes(self.scalar).exchange(share)

    def _terms_refusal(self, peer: abi.mh_hello, role: int) -> abi.mh_status:
        if peer.addresses != abi.mh_address_kind.MH_ADDRESS_RAM:
            return Status.MH_OTHER_ADDRESSES
        if bytes(peer.guest) != self.secret.guest:
            return Status.MH_OTHER_GUEST
        if peer.flags != self.secret.flags:
            return Status.MH_OTHER_TERMS
        target, source = (peer.protection, PROTECTION) if role == Role.MH_ROLE_SOURCE else (PROTECTION, peer.protection)
        if peer.protection < self.secret.protection or target < source:
            return Status.MH_WEAKER_PEER
        return Status.MH_DONE


def _form_refusal(peer: abi.mh_hello) -> abi.mh_status:
    if peer.magic != abi.MH_HELLO_MAGIC:
        return Status.MH_NOT_HELLO
    if min(peer.high, abi.MH_PROTOCOL_HIGH) < max(peer.low, abi.MH_PROTOCOL_LOW):
        return Status.MH_NO_PROTOCOL
    if any(peer.reserved):
        return Status.MH_NOT_HELLO
    return Status.MH_DONE
