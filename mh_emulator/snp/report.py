"""A guest's report, as the guest gets it, and whether somebody who knows the chain believes it."""

from __future__ import annotations

import struct

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mh_emulator.psp.ecc import ecdsa_verify
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.psp.snp.report import REPORT_BYTES, SIGNED_BYTES
from mh_emulator.snp.channel import Channel
from mh_emulator.snp.stage import Stage

_REPORT_START = 0x20


def read_report(stage: Stage, channel: Channel, data: bytes = bytes(64)) -> bytes:
    """The report with `data`, for the channel's own VMPL."""
    request = data + struct.pack("<I28x", channel.vmpck)
    return stage.ask(channel, MessageType.REPORT_REQ, request)[_REPORT_START : _REPORT_START + REPORT_BYTES]


def is_signed(report: bytes, chain: list[bytes]) -> bool:
    """Whether the VCEK of `chain`, which is VCEK, ASK and ARK in DER, signed the report, and they one another."""
    vcek, ask, ark = (x509.load_der_x509_certificate(der) for der in chain)
    try:
        for certificate, issuer in ((vcek, ask), (ask, ark), (ark, ark)):
            certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError):
        return False
    key = vcek.public_key()
    return isinstance(key, ec.EllipticCurvePublicKey) and ecdsa_verify(
        key, report[:SIGNED_BYTES], report[SIGNED_BYTES:], hashes.SHA384()
    )
