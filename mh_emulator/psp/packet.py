"""Packets and measurements: what the transport keys protect. Nothing in a packet names an address or a place in a row.

Source: SEV API (AMD 55766), sections 6.5.1, 6.6, 6.9 and 6.13; AMD-ASPFW, sev_channel.c, sev_mcmd.c; AMDESE/sev-tool,
commands.cpp.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mh_emulator.psp.build import CONTEXT_MEASURE, CONTEXT_SECRET
from mh_emulator.psp.crypto import aes_ctr, check_mac, mac
from mh_emulator.psp.session import Channel

_HEADER = struct.Struct("<I16s32s")
HEADER_BYTES = _HEADER.size
assert HEADER_BYTES == 52  # noqa: S101

FLAG_COMPRESSED = 1 << 0


@dataclass(frozen=True, slots=True)
class Packet:
    """Data on its way: the 52-byte header (flags, IV, MAC) and the ciphertext."""

    header: bytes
    data: bytes

    @property
    def flags(self) -> int:
        """FLAGS."""
        return int.from_bytes(self.header[:4], "little")


def seal(channel: Channel, context: int, data: bytes, iv: bytes) -> Packet:
    """Encrypt, then authenticate `data` (a multiple of 16 bytes)."""
    ciphertext = aes_ctr(channel.tek, iv, data)
    return Packet(_HEADER.pack(0, iv, _mac(channel, context, 0, iv, ciphertext)), ciphertext)


def unseal(channel: Channel, context: int, packet: Packet) -> bytes:
    """Return the plaintext; raise `BadMacError`."""
    flags, iv, given = _HEADER.unpack_from(packet.header)
    check_mac(_mac(channel, context, flags, iv, packet.data), given)
    return aes_ctr(channel.tek, iv, packet.data)


def measure(tik: bytes, version: tuple[int, int, int], policy: int, digest: bytes, nonce: bytes) -> bytes:
    """Return the MAC of LAUNCH_MEASURE; `version` is API major, minor and build (section 6.5.1)."""
    return mac(tik, struct.pack("<4BI", CONTEXT_MEASURE, *version, policy) + digest + nonce)


def _mac(channel: Channel, context: int, flags: int, iv: bytes, data: bytes) -> bytes:
    head = struct.pack("<BI", context, flags) + iv + struct.pack("<II", len(data), len(data))
    bound = channel.measurement if context == CONTEXT_SECRET else b""
    return mac(channel.tik, head + data + bound)
