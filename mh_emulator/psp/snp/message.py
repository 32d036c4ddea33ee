"""Guest messages: what a guest and the secure processor say to each other through pages that the host carries.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_rmp.h (snp_guest_message_header_t, snp_guest_message_t), sev_mcmd.c
(snp_mcmd_guest_request); Linux, drivers/virt/coco/sev-guest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_HEADER = struct.Struct("<32sQ8xBBHBBHIB35x")
HEADER_BYTES = _HEADER.size
assert HEADER_BYTES == 0x60  # noqa: S101
_AAD_START = 0x30
_TAG_BYTES = 16
_TAG_FIELD = 32
_IV_BYTES = 12
AES_256_GCM = 1
HEADER_VERSION = MESSAGE_VERSION = 1
PAYLOAD_UNIT = 16


class MessageType(IntEnum):
    """MSG_TYPE; the answer to a request has the next number."""

    CPUID_REQ = 1
    KEY_REQ = 3
    REPORT_REQ = 5
    EXPORT_REQ = 7
    IMPORT_REQ = 9
    ABSORB_REQ = 11
    VMRK_REQ = 13
    ABSORB_NOMA_REQ = 15
    TSC_INFO_REQ = 17


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the payload, in clear."""

    seqno: int
    kind: int
    size: int
    vmpck: int
    version: int = MESSAGE_VERSION
    tag: bytes = bytes(_TAG_FIELD)
    algorithm: int = AES_256_GCM
    header_version: int = HEADER_VERSION
    header_bytes: int = HEADER_BYTES

    def pack(self) -> bytes:
        """`HEADER_BYTES` bytes."""
        return _HEADER.pack(
            self.tag, self.seqno, self.algorithm, self.header_version, self.header_bytes, self.kind, self.version,
            self.size, 0, self.vmpck,
        )  # fmt: skip

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Read a header; nothing in it is checked."""
        tag, seqno, algorithm, header_version, header_bytes, kind, version, size, _, vmpck = _HEADER.unpack(data)
        return cls(seqno, kind, size, vmpck, version, tag, algorithm, header_version, header_bytes)


def seal(key: bytes, header: Header, payload: bytes) -> bytes:
    """A whole message under the 32-byte `key`."""
    clear = header.pack()
    sealed = AESGCM(key).encrypt(_iv(header.seqno), payload, clear[_AAD_START:])
    tag = sealed[-_TAG_BYTES:].ljust(_TAG_FIELD, b"\0")
    return tag + clear[_TAG_FIELD:] + sealed[:-_TAG_BYTES]


def unseal(key: bytes, header: bytes, sealed: bytes) -> bytes | None:
    """The payload of a message with this `header`; None where it was not made under `key`."""
    fields = Header.parse(header)
    try:
        return AESGCM(key).decrypt(_iv(fields.seqno), sealed + fields.tag[:_TAG_BYTES], header[_AAD_START:])
    except InvalidTag:
        return None


def _iv(seqno: int) -> bytes:
    return seqno.to_bytes(_IV_BYTES, "little")
