"""Who a chip is: its VCEK, one for every TCB version, and the X.509 chain from AMD's root to it.

Source: VCEK certificates and KDS interface (AMD 57230), names and extensions; AMD-ASPFW (SEV firmware 1.55.25),
sev_plat.c (vcek_hash_derive, vcek_derive). On chips a seed of each component's version is derived from that of the
next one; here every TCB version has a seed of its own. The root is that of `mh_emulator.psp.amd`, as on chips, where
SEV and SNP of a generation have the same ARK and ASK; its keys are short, and dates are constants.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mh_emulator.psp import amd
from mh_emulator.psp.crypto import SECRET_BYTES, RandomBytes, kdf, private_key
from mh_emulator.psp.snp.tcb import TCB_BYTES, Tcb

CHIP_ID_BYTES = 64
_SEED_BYTES = 48
_OID = "1.3.6.1.4.1.3704.1"
_SPL_OIDS = {"boot_loader": f"{_OID}.3.1", "tee": f"{_OID}.3.2", "snp": f"{_OID}.3.3", "microcode": f"{_OID}.3.8"}
_FMC_OID = f"{_OID}.3.9"
_PRODUCT_OID, _CHIP_ID_OID = f"{_OID}.2", f"{_OID}.4"
_FROM, _UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC)
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=48)
_DER_INTEGER, _DER_IA5STRING = 0x02, 0x16

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class ChipIdentity:
    """The secrets of one chip."""

    def __init__(self, random: RandomBytes, part: str) -> None:
        self._part = part
        self._secret = random(_SEED_BYTES)
        self._number = random(8 if part == "turin" else CHIP_ID_BYTES)
        self.chip_id = self._number.ljust(CHIP_ID_BYTES, b"\0")
        """CHIP_ID of reports; on Turin 8 bytes, and zeros behind them."""

    def seed(self, tcb: Tcb) -> bytes:
        """The hash from which the VCEK of `tcb`, and keys that guests derive of it, are made."""
        version = tcb.pack(self._part).to_bytes(TCB_BYTES, "little")
        return kdf(self._secret, b"vcek-hash", version, _SEED_BYTES)

    def vcek(self, tcb: Tcb) -> ec.EllipticCurvePrivateKey:
        """The key that signs reports while `tcb` is reported."""
        return private_key(kdf(self.seed(tcb), b"vcek", size=SECRET_BYTES))

    def chain(self, tcb: Tcb) -> list[bytes]:
        """VCEK, ASK and ARK, in DER, as AMD's server hands them out for a chip and a TCB version."""
        product = self._part.capitalize()
        root = amd.root()
        ark = _certificate(f"ARK-{product}", root.ark.public_key(), f"ARK-{product}", root.ark)
        ask = _certificate(f"SEV-{product}", root.ask.public_key(), f"ARK-{product}", root.ark)
        vcek = _certificate(
            "SEV-VCEK", self.vcek(tcb).public_key(), f"SEV-{product}", root.ask, self._extensions(product, tcb)
        )
        return [vcek, ask, ark]

    def _extensions(self, product: str, tcb: Tcb) -> dict[str, bytes]:
        levels = {oid: _der_byte(getattr(tcb, name)) for name, oid in _SPL_OIDS.items()}
        if self._part == "turin":
            levels[_FMC_OID] = _der_byte(tcb.fmc)
        name = bytes((_DER_IA5STRING, len(product))) + product.encode()
        return {_PRODUCT_OID: name} | levels | {_CHIP_ID_OID: self._number}


def _der_byte(number: int) -> bytes:
    body = number.to_bytes(1 + number.bit_length() // 8, "big")
    return bytes((_DER_INTEGER, len(body))) + body


def _certificate(
    name: str, public: PublicKey, issuer: str, key: rsa.RSAPrivateKey, extensions: dict[str, bytes] | None = None
) -> bytes:
    builder = x509.CertificateBuilder(_name(issuer), _name(name), public, 1, _FROM, _UNTIL)
    if extensions is None:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    return builder.sign(key, hashes.SHA384(), rsa_padding=_PSS).public_bytes(Encoding.DER)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Emulated Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
