"""Sessions between a guest owner and a platform, and the packets inside.

Source: SEV API (AMD 55766), section 2.2 and chapter 6; AMD-ASPFW, nist_kdf.c, sev_channel.c, sev_guest.c.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEY_BYTES = 16
NONCE_BYTES = 16
IV_BYTES = 16
MAC_BYTES = 32

CURVE = ec.SECP384R1()

_SESSION = struct.Struct("<16s32s16s32s32s")
SESSION_BYTES = _SESSION.size
assert SESSION_BYTES == 128  # noqa: S101

_HEADER = struct.Struct("<I16s32s")
HEADER_BYTES = _HEADER.size
assert HEADER_BYTES == 52  # noqa: S101

FLAG_COMPRESSED = 1 << 0

_CONTEXT_SECRET = 0x01
_CONTEXT_MEASURE = 0x04


class BadMacError(Exception):
    """A message authentication code is wrong."""


@dataclass(frozen=True, slots=True)
class LaunchSession:
    """What a guest owner hands to LAUNCH_START."""

    owner_public: bytes
    """ECDH P-384 public point, X9.62 uncompressed; the real command takes a certificate around it."""
    blob: bytes
    """NONCE, WRAP_TK, WRAP_IV, WRAP_MAC, POLICY_MAC: 128 bytes."""


@dataclass(slots=True)
class Channel:
    """Transport keys that both ends hold; all zero without a session, as in the firmware."""

    tek: bytes = field(default=bytes(KEY_BYTES), repr=False)
    tik: bytes = field(default=bytes(KEY_BYTES), repr=False)
    measurement: bytes = bytes(MAC_BYTES)
    """Of LAUNCH_MEASURE: part of what the MAC of a secret covers."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A launch secret on its way: the 52-byte header and the ciphertext."""

    header: bytes
    data: bytes


def kdf(key: bytes, label: bytes, context: bytes = b"", size: int = KEY_BYTES) -> bytes:
    """SP 800-108 in counter mode with HMAC-SHA256; counter and length are little-endian here."""
    blocks = range(1, -(-size // MAC_BYTES) + 1)
    tail = label + b"\0" + context + struct.pack("<I", 8 * size)
    return b"".join(mac(key, struct.pack("<I", number) + tail) for number in blocks)[:size]


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.digest(key, message, hashlib.sha256)


def aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    """AES-128-CTR with a 128-bit big-endian counter."""
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


def public_bytes(private: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public point of `private`, X9.62 uncompressed."""
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def shared_secret(private: ec.EllipticCurvePrivateKey, peer: bytes) -> bytes:
    """Return the 48-byte Z, least significant byte first; raise `ValueError` where `peer` is no point."""
    return private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVE, peer))[::-1]


def wrap_session(z: bytes, policy: int, channel: Channel, nonce: bytes, iv: bytes) -> bytes:
    """Make the 128-byte session that gives `channel`'s keys to whoever knows `z`."""
    kek, kik = _wrapping_keys(z, nonce)
    wrapped = aes_ctr(kek, iv, channel.tek + channel.tik)
    return _SESSION.pack(nonce, wrapped, iv, mac(kik, wrapped), mac(channel.tik, struct.pack("<I", policy)))


def unwrap_session(z: bytes, policy: int, blob: bytes) -> Channel:
    """Recover the transport keys from a session; raise `BadMacError`."""
    nonce, wrapped, iv, wrap_mac, policy_mac = _SESSION.unpack(blob)
    kek, kik = _wrapping_keys(z, nonce)
    _check(mac(kik, wrapped), wrap_mac)
    keys = aes_ctr(kek, iv, wrapped)
    channel = Channel(keys[:KEY_BYTES], keys[KEY_BYTES:])
    _check(mac(channel.tik, struct.pack("<I", policy)), policy_mac)
    return channel


def measure(tik: bytes, version: tuple[int, int, int], policy: int, digest: bytes, nonce: bytes) -> bytes:
    """Return the MAC of LAUNCH_MEASURE; `version` is API major, minor and build (section 6.5.1)."""
    return mac(tik, struct.pack("<4BI", _CONTEXT_MEASURE, *version, policy) + digest + nonce)


def wrap_secret(channel: Channel, secret: bytes, iv: bytes) -> Packet:
    """Encrypt `secret` (a multiple of 16 bytes) for LAUNCH_SECRET."""
    data = aes_ctr(channel.tek, iv, secret)
    return Packet(_HEADER.pack(0, iv, _secret_mac(channel, 0, iv, data)), data)


def unwrap_secret(channel: Channel, packet: Packet) -> tuple[int, bytes]:
    """Return flags and plaintext of a launch secret; raise `BadMacError`."""
    flags, iv, secret_mac = _HEADER.unpack(packet.header)
    _check(_secret_mac(channel, flags, iv, packet.data), secret_mac)
    return flags, aes_ctr(channel.tek, iv, packet.data)


def _secret_mac(channel: Channel, flags: int, iv: bytes, data: bytes) -> bytes:
    lengths = struct.pack("<II", len(data), len(data))
    head = struct.pack("<BI", _CONTEXT_SECRET, flags)
    return mac(channel.tik, head + iv + lengths + data + channel.measurement)


def _wrapping_keys(z: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    master = kdf(z, b"sev-master-secret", nonce)
    return kdf(master, b"sev-kek"), kdf(master, b"sev-kik")


def _check(computed: bytes, given: bytes) -> None:
    if not hmac.compare_digest(computed, given):
        raise BadMacError
