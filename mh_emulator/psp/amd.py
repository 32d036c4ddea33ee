"""AMD, as far as it signs: the root key (ARK) and the key that signs chips' keys (ASK), for all emulated platforms.

Certificates as in SEV API (AMD 55766), appendix B.1; AMD-ASPFW, amd_cert.h, amd_cert.c. The keys are made when they
are first needed, and belong to this process: they cannot be mistaken for AMD's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

from mh_emulator.psp.certificate import Signer, Usage, rsa_sign, rsa_verify
from mh_emulator.psp.status import Refused, Status, require

_KEY_BITS = 2048
_KEY_BYTES = _KEY_BITS // 8
_ID_BYTES = 16
_VERSION = 1
_FIXED = struct.Struct(f"<I{_ID_BYTES}s{_ID_BYTES}sI16xII")
AMD_CERTIFICATE_BYTES = _FIXED.size + 3 * _KEY_BYTES
AMD_CHAIN_BYTES = 2 * AMD_CERTIFICATE_BYTES
"""ASK, then ARK."""

_EXPONENT = 65537
_ARK_ID, _ASK_ID = b"emulated AMD ARK", b"emulated AMD ASK"


@dataclass(frozen=True)
class Root:
    """AMD's two keys."""

    ark: rsa.RSAPrivateKey
    ask: rsa.RSAPrivateKey
    chain: bytes
    """Both certificates, `AMD_CHAIN_BYTES`."""

    @property
    def signer(self) -> Signer:
        """Who signs the key of a chip."""
        return Signer(self.ask, Usage.ASK)


@cache
def root() -> Root:
    """The one root of this process."""
    ark, ask = (rsa.generate_private_key(_EXPONENT, _KEY_BITS) for _ in range(2))
    chain = _certificate(ask, _ASK_ID, Usage.ASK, ark) + _certificate(ark, _ARK_ID, Usage.ARK, ark)
    return Root(ark, ask, chain)


def validate_chain(chain: bytes) -> rsa.RSAPublicKey:
    """Check ASK and ARK against the fused root; return the ASK."""
    require(len(chain) == AMD_CHAIN_BYTES, Status.INVALID_LENGTH)
    ask, ark = chain[:AMD_CERTIFICATE_BYTES], chain[AMD_CERTIFICATE_BYTES:]
    _validate(ark, Usage.ARK, ark)
    # The real one compares with a hash in fuses.
    require(ark == root().chain[AMD_CERTIFICATE_BYTES:], Status.INVALID_CERTIFICATE)
    _validate(ask, Usage.ASK, ark)
    return _public_key(ask)


def _certificate(key: rsa.RSAPrivateKey, key_id: bytes, usage: Usage, issuer: rsa.RSAPrivateKey) -> bytes:
    fixed = _FIXED.pack(_VERSION, key_id, _ARK_ID, usage, _KEY_BITS, _KEY_BITS)
    modulus = key.public_key().public_numbers().n
    body = fixed + _EXPONENT.to_bytes(_KEY_BYTES, "little") + modulus.to_bytes(_KEY_BYTES, "little")
    return body + rsa_sign(issuer, body)


def _validate(certificate: bytes, usage: Usage, issuer: bytes) -> None:
    version, _key_id, certifying_id, found, *sizes = _FIXED.unpack_from(certificate)
    require(sizes == [_KEY_BITS, _KEY_BITS], Status.INVALID_CERTIFICATE)
    body, signature = certificate[:-_KEY_BYTES], certificate[-_KEY_BYTES:]
    require(rsa_verify(_public_key(issuer), body, signature), Status.BAD_SIGNATURE)
    require(version == _VERSION and found == usage, Status.INVALID_CERTIFICATE)
    require(certifying_id == _FIXED.unpack_from(issuer)[1], Status.INVALID_CERTIFICATE)


def _public_key(certificate: bytes) -> rsa.RSAPublicKey:
    exponent, modulus = (
        int.from_bytes(certificate[at : at + _KEY_BYTES], "little") for at in (_FIXED.size, _FIXED.size + _KEY_BYTES)
    )
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise Refused(Status.INVALID_CERTIFICATE) from None
