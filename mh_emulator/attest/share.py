"""A helper's X25519 share for its owner: what it puts into REPORT_DATA, and the record that comes back sealed for it.

payload/attest.h has the formats, payload/attest.s the helper's half.

The owner has a key of its own, whose public half is in the helper's measured pages: so a record opens for the helper
alone, and only the owner can have sealed it. AES-256-GCM under HKDF-SHA-256 of both keys' secret (RFC 7748, RFC 5869).
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mh_abi import abi

SHARE_BYTES, CHALLENGE_BYTES = abi.MH_SHARE_BYTES, abi.MH_CHALLENGE_BYTES
_LABEL = abi.MH_SHARE_LABEL.encode()
_KEY_BYTES = abi.MH_KEY_BYTES
_IV = bytes(12)
"""A constant: a challenge is used once, hence each key."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Who asks for the record: a share, the side of the migration, and the owner's challenge."""

    role: abi.mh_role
    share: bytes
    challenge: bytes

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that a report has to show, and that the record is bound to."""
        data = abi.mh_report_data(
            share=list(self.share), challenge=list(self.challenge), role=self.role.value, label=list(_LABEL)
        )
        return bytes(data.dumps())


def seal(record: bytes, binding: Binding, owner: X25519PrivateKey) -> bytes:
    """The record for who has the private half of the share. Raises `ValueError` for a share that gives no secret."""
    return AESGCM(_key(owner, binding.share, binding)).encrypt(_IV, record, binding.report_data)


def unseal(sealed: bytes, binding: Binding, private: X25519PrivateKey, owner: bytes) -> bytes | None:
    """The record; None where it is not for `private` and `binding`, not by `owner`, or was changed."""
    try:
        return AESGCM(_key(private, owner, binding)).decrypt(_IV, sealed, binding.report_data)
    except (InvalidTag, ValueError):
        return None


def _key(private: X25519PrivateKey, public: bytes, binding: Binding) -> bytes:
    secret = private.exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(SHA256(), _KEY_BYTES, binding.challenge, binding.report_data).derive(secret)
