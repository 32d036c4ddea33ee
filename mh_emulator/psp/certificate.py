"""SEV certificates: a public key and up to two signatures, 2084 bytes, all integers little-endian.

Source: SEV API (AMD 55766), appendix C.1; AMD-ASPFW, sev_cert.h, sev_cert.c, ecc.h; AMDESE/sev-tool, sevcert.cpp.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mh_emulator.psp.ecc import ecdsa_sign, ecdsa_verify, pack_key, parse_key
from mh_emulator.psp.status import Refused, Status, require


class Usage(IntEnum):
    """What a key is for."""

    ARK = 0x0000
    ASK = 0x0013
    NONE = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


class Algorithm(IntEnum):
    """What a key does."""

    NONE = 0x000
    ECDSA_SHA256 = 0x002
    ECDH_SHA256 = 0x003
    RSA_SHA384 = 0x101


CERTIFICATE_VERSION = 1
_KEY_AREA = 1028
_SIGNATURE_AREA = 512
_BODY = struct.Struct(f"<IBB2xII{_KEY_AREA}s")
_SIGNATURE = struct.Struct(f"<II{_SIGNATURE_AREA}s")
CERTIFICATE_BYTES = _BODY.size + 2 * _SIGNATURE.size
assert CERTIFICATE_BYTES == 2084  # noqa: S101

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
VerifyingKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

# Who may sign whom: sev_cert_validate.
_SIGNERS: dict[int, tuple[Usage, ...]] = {
    Usage.PDH: (Usage.PEK,),
    Usage.PEK: (Usage.OCA, Usage.CEK),
    Usage.OCA: (Usage.OCA,),
    Usage.CEK: (Usage.ASK,),
}
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=48)


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: the key and what it is called in a signature."""

    key: SigningKey
    usage: Usage

    def sign(self, body: bytes) -> bytes:
        """The signature block over `body`."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return _SIGNATURE.pack(self.usage, Algorithm.RSA_SHA384, rsa_sign(self.key, body))
        return _SIGNATURE.pack(self.usage, Algorithm.ECDSA_SHA256, ecdsa_sign(self.key, body, hashes.SHA256()))


_NO_SIGNATURE = _SIGNATURE.pack(Usage.NONE, Algorithm.NONE, b"")


def make_certificate(
    public: ec.EllipticCurvePublicKey, usage: Usage, version: tuple[int, int], signers: tuple[Signer, ...] = ()
) -> bytes:
    """A certificate for `public`, signed by up to two; `version` is API major and minor."""
    algorithm = Algorithm.ECDH_SHA256 if usage is Usage.PDH else Algorithm.ECDSA_SHA256
    body = _BODY.pack(CERTIFICATE_VERSION, *version, usage, algorithm, pack_key(public))
    signatures = [signer.sign(body) for signer in signers]
    return body + b"".join(signatures) + _NO_SIGNATURE * (2 - len(signatures))


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate as read; nothing in it is trusted yet."""

    data: bytes
    format: int
    version: tuple[int, int]
    usage: int
    algorithm: int
    key_area: bytes

    @classmethod
    def parse(cls, data: bytes) -> Certificate:
        """Read `CERTIFICATE_BYTES` bytes."""
        number, major, minor, usage, algorithm, key = _BODY.unpack_from(data)
        return cls(bytes(data), number, (major, minor), usage, algorithm, key)

    @property
    def body(self) -> bytes:
        """What is signed."""
        return self.data[: _BODY.size]

    @property
    def signatures(self) -> list[tuple[int, int, bytes]]:
        """(usage, algorithm, signature) of both blocks."""
        return [_SIGNATURE.unpack_from(self.data, _BODY.size + at) for at in (0, _SIGNATURE.size)]

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The key; refused where there is no point on the curve."""
        try:
            return parse_key(self.key_area)
        except ValueError:
            raise Refused(Status.INVALID_CERTIFICATE) from None

    def check_body(self, usage: Usage, algorithm: Algorithm) -> None:
        """The sanity check that is all a peer's PDH gets without POLICY.SEV or POLICY.DOMAIN."""
        require(self.format == CERTIFICATE_VERSION, Status.INVALID_CERTIFICATE)
        require((self.usage, self.algorithm) == (usage, algorithm), Status.INVALID_CERTIFICATE)
        self.public_key()

    def validate(self, signer: VerifyingKey, signer_usage: int) -> None:
        """Check the signature of `signer`, then the rest."""
        algorithm = Algorithm.RSA_SHA384 if isinstance(signer, rsa.RSAPublicKey) else Algorithm.ECDSA_SHA256
        status = Status.INVALID_CERTIFICATE
        for usage, used, signature in self.signatures:
            require((usage == Usage.NONE) is (used == Algorithm.NONE), Status.BAD_SIGNATURE)
            if (usage, used) == (signer_usage, algorithm):
                status = Status.SUCCESS if _verifies(signer, self.body, signature) else Status.BAD_SIGNATURE
        require(status is Status.SUCCESS, status)
        require(self.format == CERTIFICATE_VERSION, Status.INVALID_CERTIFICATE)
        self.public_key()
        require(signer_usage in _SIGNERS.get(self.usage, ()), Status.INVALID_CERTIFICATE)


def _verifies(key: VerifyingKey, body: bytes, signature: bytes) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return ecdsa_verify(key, body, signature, hashes.SHA256())
    return rsa_verify(key, body, signature)


def rsa_sign(key: rsa.RSAPrivateKey, message: bytes) -> bytes:
    """RSA-PSS with SHA-384, least significant byte first."""
    return key.sign(message, _PSS, hashes.SHA384())[::-1]


def rsa_verify(key: rsa.RSAPublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `rsa_sign` made `signature`; what lies behind it is ignored."""
    try:
        key.verify(signature[: key.key_size // 8][::-1], message, _PSS, hashes.SHA384())
    except InvalidSignature:
        return False
    return True
