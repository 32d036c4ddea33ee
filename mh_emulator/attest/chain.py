"""From a report's signature to AMD's root: VCEK, ASK, ARK, and that the VCEK is that of the chip and TCB in the report.

Source: VCEK certificates and KDS interface (AMD 57230), chapter 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mh_emulator.attest.report import SIGNED_BYTES, Report
from mh_emulator.psp.ecc import ecdsa_verify
from mh_emulator.psp.snp.tcb import TCB_BYTES, TCB_LAYOUTS

_OID = "1.3.6.1.4.1.3704.1"
_PRODUCT_OID, _CHIP_ID_OID = f"{_OID}.2", f"{_OID}.4"
_LEVEL_OIDS = {
    "boot_loader": f"{_OID}.3.1",
    "tee": f"{_OID}.3.2",
    "snp": f"{_OID}.3.3",
    "microcode": f"{_OID}.3.8",
    "fmc": f"{_OID}.3.9",
}
_DER_HEADER_BYTES = 2


class ChainError(ValueError):
    """Certificates that do not lead from a report to a root."""


class Chain:
    """VCEK, ASK and ARK. Raises `ChainError` where they are no chain."""

    def __init__(self, certificates: Sequence[bytes]) -> None:
        try:
            self._vcek, ask, ark = (x509.load_der_x509_certificate(der) for der in certificates)
            for certificate, issuer in ((self._vcek, ask), (ask, ark), (ark, ark)):
                certificate.verify_directly_issued_by(issuer)
            self._key = self._vcek.public_key()
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as error:
            raise ChainError(f"chain: expected VCEK, ASK and ARK in DER, {type(error).__name__}") from None
        key = ark.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.root = hashlib.sha256(key).digest()
        """SHA-256 of the ARK's SubjectPublicKeyInfo."""

    def signed(self, report: bytes) -> bool:
        """Whether the VCEK signed the report."""
        return isinstance(self._key, ec.EllipticCurvePublicKey) and ecdsa_verify(
            self._key, report[:SIGNED_BYTES], report[SIGNED_BYTES:], hashes.SHA384()
        )

    def is_of(self, report: Report, part: str) -> bool:
        """Whether the VCEK is that of the part, of the report's TCB, and of its chip unless that is masked.

        The part's name may be followed by a stepping, as in `Milan-B0`.
        """
        product = self._extension(_PRODUCT_OID)[_DER_HEADER_BYTES:]
        if product.split(b"-")[0] != part.capitalize().encode():
            return False
        levels = report.reported_tcb.to_bytes(TCB_BYTES, "little")
        shown = {name: level for name, level in zip(TCB_LAYOUTS[part], levels, strict=True) if name}
        chip = self._extension(_CHIP_ID_OID).ljust(len(report.chip_id), b"\0")
        return shown == {name: self._level(name) for name in shown} and report.chip_id in (bytes(len(chip)), chip)

    def _level(self, name: str) -> int:
        """A number of the TCB; the extension is a DER integer."""
        return int.from_bytes(self._extension(_LEVEL_OIDS[name])[_DER_HEADER_BYTES:])

    def _extension(self, oid: str) -> bytes:
        try:
            found = self._vcek.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid)).value
        except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
            return b""
        return found.value if isinstance(found, x509.UnrecognizedExtension) else b""
