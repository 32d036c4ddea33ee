"""The firmware's cryptography: key derivation, MAC, cipher, key agreement.

Source: SEV API (AMD 55766), section 2.2; AMD-ASPFW, nist_kdf.c, ecdh.c.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 16
NONCE_BYTES = 16
IV_BYTES = 16
MAC_BYTES = 32

CURVE = ec.SECP384R1()
SECRET_BYTES = 47

RandomBytes = Callable[[int], bytes]
"""Returns as many bytes as it is asked for."""


class BadMacError(Exception):
    """A message authentication code is wrong."""


def kdf(key: bytes, label: bytes, context: bytes = b"", size: int = KEY_BYTES) -> bytes:
    """SP 800-108 in counter mode with HMAC-SHA256; counter and length are little-endian here."""
    blocks = range(1, -(-size // MAC_BYTES) + 1)
    tail = label + b"\0" + context + struct.pack("<I", 8 * size)
    return b"".join(mac(key, struct.pack("<I", number) + tail) for number in blocks)[:size]


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.digest(key, message, hashlib.sha256)


def check_mac(computed: bytes, given: bytes) -> None:
    """Compare in constant time; raise `BadMacError`."""
    if not hmac.compare_digest(computed, given):
        raise BadMacError


def aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    """AES-128-CTR with a 128-bit big-endian counter."""
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


@lru_cache(maxsize=256)
def private_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The key on the curve of the firmware, P-384, that `SECRET_BYTES` random bytes give."""
    return ec.derive_private_key(int.from_bytes(secret, "big") + 1, CURVE)


def shared_secret(private: ec.EllipticCurvePrivateKey, peer: ec.EllipticCurvePublicKey) -> bytes:
    """Return the 48-byte Z, least significant byte first."""
    return private.exchange(ec.ECDH(), peer)[::-1]
