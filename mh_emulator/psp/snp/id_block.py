"""The ID block and the page with its signatures, by which an owner says which guest this has to be.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.h (snp_mcmd_launch_finish_id_block, _id_auth_page), sev_mcmd.c
(snp_mcmd_launch_finish).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mh_builder.firmware.snp import DIGEST_BYTES
from mh_emulator.psp.ecc import ecdsa_sign, ecdsa_verify, pack_key, parse_key
from mh_emulator.psp.status import Refused, Status, require

ECDSA_P384_SHA384 = 1
_KEY_BYTES, _SIGNATURE_BYTES = 0x404, 0x200
_BLOCK = struct.Struct("<48s16s16sIIQ")
ID_BLOCK_BYTES = _BLOCK.size
_AUTH = struct.Struct(f"<II56x{_SIGNATURE_BYTES}s{_KEY_BYTES}s60x{_SIGNATURE_BYTES}s{_KEY_BYTES}s892x")
ID_AUTH_BYTES = _AUTH.size


@dataclass(frozen=True, slots=True)
class IdBlock:
    """What the owner expects of the launch, and names of the guest that reports show."""

    ld: bytes = bytes(DIGEST_BYTES)
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    version: int = 0
    guest_svn: int = 0
    policy: int = 0

    def pack(self) -> bytes:
        """`ID_BLOCK_BYTES` bytes."""
        return _BLOCK.pack(self.ld, self.family_id, self.image_id, self.version, self.guest_svn, self.policy)

    @classmethod
    def parse(cls, data: bytes) -> IdBlock:
        """Read a block; nothing in it is checked."""
        return cls(*_BLOCK.unpack(data))


@dataclass(frozen=True, slots=True)
class IdAuth:
    """The page of signatures as read; nothing in it is trusted yet."""

    id_algorithm: int
    author_algorithm: int
    block_signature: bytes
    id_key: bytes
    id_key_signature: bytes
    author_key: bytes

    @classmethod
    def parse(cls, data: bytes) -> IdAuth:
        """Read `ID_AUTH_BYTES` bytes."""
        return cls(*_AUTH.unpack(data))

    def check_id(self, block: bytes) -> bytes:
        """Check the signature of the ID key over `block`; return the digest of the key."""
        return _check(self.id_key, block, self.block_signature)

    def check_author(self) -> bytes:
        """Check the signature of the author's key over the ID key; return the digest of the author's key."""
        return _check(self.author_key, self.id_key, self.id_key_signature)


def sign_id_block(
    block: IdBlock, id_key: ec.EllipticCurvePrivateKey, author_key: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    """The page of signatures that goes with `block`: what an owner does."""
    public = _key_area(id_key)
    signature = ecdsa_sign(id_key, block.pack(), hashes.SHA384())
    by_author, author = b"", b""
    if author_key is not None:
        by_author, author = ecdsa_sign(author_key, public, hashes.SHA384()), _key_area(author_key)
    author_algorithm = ECDSA_P384_SHA384 if author_key is not None else 0
    return _AUTH.pack(ECDSA_P384_SHA384, author_algorithm, signature, public, by_author, author)


def _key_area(key: ec.EllipticCurvePrivateKey) -> bytes:
    return pack_key(key.public_key()).ljust(_KEY_BYTES, b"\0")


def _check(key: bytes, message: bytes, signature: bytes) -> bytes:
    try:
        public = parse_key(key)
    except ValueError:
        raise Refused(Status.BAD_SIGNATURE) from None
    require(ecdsa_verify(public, message, signature, hashes.SHA384()), Status.BAD_SIGNATURE)
    return hashlib.sha384(key).digest()
