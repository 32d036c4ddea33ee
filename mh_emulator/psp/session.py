"""Sessions: how a guest owner or another platform gives a platform transport keys.

Source: SEV API (AMD 55766), section 2.2.2; AMD-ASPFW, sev_channel.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from mh_emulator.psp.crypto import IV_BYTES, KEY_BYTES, MAC_BYTES, NONCE_BYTES, aes_ctr, check_mac, kdf, mac

_SESSION = struct.Struct(f"<{NONCE_BYTES}s{2 * KEY_BYTES}s{IV_BYTES}s{MAC_BYTES}s{MAC_BYTES}s")
SESSION_BYTES = _SESSION.size
assert SESSION_BYTES == 128  # noqa: S101


@dataclass(frozen=True, slots=True)
class Session:
    """What LAUNCH_START and RECEIVE_START take from the other end."""

    certificate: bytes
    """With the other end's Diffie-Hellman key, 2084 bytes; who signed it does not matter."""
    blob: bytes
    """NONCE, WRAP_TK, WRAP_IV, WRAP_MAC, POLICY_MAC: 128 bytes."""


@dataclass(slots=True)
class Channel:
    """Transport keys that both ends hold; all zero without a session, as in the firmware."""

    tek: bytes = field(default=bytes(KEY_BYTES), repr=False)
    tik: bytes = field(default=bytes(KEY_BYTES), repr=False)
    measurement: bytes = bytes(MAC_BYTES)
    """What LAUNCH_MEASURE returned; the MAC of a secret covers it."""


def wrap_session(z: bytes, policy: int, channel: Channel, nonce: bytes, iv: bytes) -> bytes:
    """Make the 128-byte session that gives `channel`'s keys to whoever knows `z`."""
    kek, kik = _wrapping_keys(z, nonce)
    wrapped = aes_ctr(kek, iv, channel.tek + channel.tik)
    return _SESSION.pack(nonce, wrapped, iv, mac(kik, wrapped), mac(channel.tik, struct.pack("<I", policy)))


def unwrap_session(z: bytes, policy: int, blob: bytes) -> Channel:
    """Recover the transport keys from a session; raise `BadMacError`."""
    nonce, wrapped, iv, wrap_mac, policy_mac = _SESSION.unpack(blob)
    kek, kik = _wrapping_keys(z, nonce)
    check_mac(mac(kik, wrapped), wrap_mac)
    keys = aes_ctr(kek, iv, wrapped)
    channel = Channel(keys[:KEY_BYTES], keys[KEY_BYTES:])
    check_mac(mac(channel.tik, struct.pack("<I", policy)), policy_mac)
    return channel


def _wrapping_keys(z: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    master = kdf(z, b"sev-master-secret", nonce)
    return kdf(master, b"sev-kek"), kdf(master, b"sev-kik")
