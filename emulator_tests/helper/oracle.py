"""Keys and packets computed with `cryptography` and the ABI header alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from payload import abi


@dataclass(frozen=True)
class SessionKeys:
    """What both helpers derive."""

    page_key: bytes
    session: bytes
    stream: int = 0

    def open(self, packet: bytes, data: bytes) -> bytes:
        """Decrypt; `InvalidTag` where anything was changed."""
        fields = abi.mh_packet(packet)
        assert bytes(fields.session) == self.session
        return AESGCM(self.page_key).decrypt(_iv(packet), data + bytes(fields.tag), packet[: abi.MH_PACKET_AAD_BYTES])

    def seal(self, plain: bytes, **fields: Any) -> tuple[bytes, bytes]:
        """Make a packet as a helper would: (packet, data)."""
        own = {"session": list(self.session), "stream": self.stream, "length": len(plain)}
        header = packet_fields(**(own | fields)).dumps()
        sealed = AESGCM(self.page_key).encrypt(_iv(header), plain, header[: abi.MH_PACKET_AAD_BYTES])
        return header[: abi.MH_PACKET_AAD_BYTES] + sealed[len(plain) :], sealed[: len(plain)]


def packet_fields(**fields: Any) -> Any:
    """A packet with its constant fields filled in."""
    constant = {"magic": abi.MH_PACKET_MAGIC, "version": abi.MH_ABI_VERSION, "kind": abi.mh_kind.MH_KIND_PAGE.value}
    return abi.mh_packet(**(constant | fields))


def derive(
    transport_key: bytes, source_nonce: bytes, target_nonce: bytes, stream: int = 0, streams: int = 1
) -> SessionKeys:
    """SP 800-108r1 4.1 with CMAC-AES256, as abi.h lays it out."""

    def output(label: str, size: int, number: int) -> bytes:
        context = abi.mh_kdf_context(
            source_nonce=list(source_nonce),
            target_nonce=list(target_nonce),
            stream=number,
            streams=streams,
            version=abi.MH_ABI_VERSION,
        ).dumps()
        kdf = KBKDFCMAC(AES, Mode.CounterMode, size, 4, 4, CounterLocation.BeforeFixed, label.encode(), context, None)
        return kdf.derive(transport_key)

    return SessionKeys(
        page_key=output(abi.MH_KDF_LABEL_KEY, abi.MH_KEY_BYTES, stream),
        session=output(abi.MH_KDF_LABEL_SESSION, abi.MH_SESSION_BYTES, 0),
        stream=stream,
    )


def _iv(packet: bytes) -> bytes:
    return packet[abi.MH_PACKET_IV_OFFSET : abi.MH_PACKET_IV_OFFSET + abi.MH_PACKET_IV_BYTES]
