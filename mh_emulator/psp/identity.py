"""Who a platform is: its keys, and the certificates with which it shows them.

Source: SEV API (AMD 55766), section 2.1; AMD-ASPFW, sev_plat.c, sev_mcmd.c (pdh_cert_chain_init, validate_platform,
validate_domain).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mh_emulator.psp import amd
from mh_emulator.psp.certificate import CERTIFICATE_BYTES, Certificate, Signer, Usage, make_certificate
from mh_emulator.psp.crypto import SECRET_BYTES, RandomBytes, private_key
from mh_emulator.psp.status import Status, require

CHAIN_BYTES = 3 * CERTIFICATE_BYTES
"""PEK, OCA, CEK."""

_REMEMBERED = 64


class PlatformCertificates(NamedTuple):
    """What PDH_CERT_EXPORT returns."""

    pdh: bytes
    chain: bytes
    """PEK, OCA, CEK; the CEK comes without the ASK's signature, which AMD's server adds."""


class Identity:
    """The keys of one chip."""

    def __init__(self, random: RandomBytes, version: tuple[int, int]) -> None:
        self._version = version
        self._random = random
        self._oca_secret, self._cek_secret, self._pek_secret, self._pdh_secret = (
            random(SECRET_BYTES) for _ in range(4)
        )

    def renew_pdh(self) -> None:
        """PDH_GEN."""
        self._pdh_secret = self._random(SECRET_BYTES)

    @property
    def pdh(self) -> ec.EllipticCurvePrivateKey:
        """Key agreement."""
        return private_key(self._pdh_secret)

    @property
    def pek(self) -> ec.EllipticCurvePrivateKey:
        """Signs the PDH and attestation reports."""
        return private_key(self._pek_secret)

    @property
    def certificates(self) -> PlatformCertificates:
        """PDH and chain as the platform itself can show them."""
        pdh = _certificate(self._pdh_secret, Usage.PDH, self._version, (self._pek_secret, Usage.PEK))
        cek = _certificate(self._cek_secret, Usage.CEK, self._version)
        return PlatformCertificates(pdh, self.pek_certificate + self.oca_certificate + cek)

    @property
    def pek_certificate(self) -> bytes:
        """Signed by the owner's key and by the chip's."""
        signers = (self._oca_secret, Usage.OCA), (self._cek_secret, Usage.CEK)
        return _certificate(self._pek_secret, Usage.PEK, self._version, *signers)

    @property
    def oca_certificate(self) -> bytes:
        """The owner's: of its own making, as the platform is self-owned."""
        return _certificate(self._oca_secret, Usage.OCA, self._version, (self._oca_secret, Usage.OCA))

    @property
    def full_chain(self) -> bytes:
        """The chain with the CEK that AMD signed, as its server hands out for a chip's ID."""
        return self.pek_certificate + self.oca_certificate + _signed_by_amd(self._cek_secret, self._version)


@lru_cache(_REMEMBERED)
def _certificate(secret: bytes, usage: Usage, version: tuple[int, int], *signers: tuple[bytes, Usage]) -> bytes:
    """The certificate of the key that `secret` gives; its signatures are deterministic, so it is made once."""
    by = tuple(Signer(private_key(signer), signs_as) for signer, signs_as in signers)
    return make_certificate(private_key(secret).public_key(), usage, version, by)


@lru_cache(_REMEMBERED)
def _signed_by_amd(cek: bytes, version: tuple[int, int]) -> bytes:
    """The one that AMD keeps for a chip."""
    return make_certificate(private_key(cek).public_key(), Usage.CEK, version, (amd.root().signer,))


@lru_cache(_REMEMBERED)
def validate_platform(pdh: bytes, chain: bytes, amd_chain: bytes) -> tuple[int, int]:
    """Check PDH <- PEK <- CEK <- ASK <- ARK (POLICY.SEV); return the API version in the PEK."""
    _check_lengths(pdh, chain)
    ask: rsa.RSAPublicKey = amd.validate_chain(amd_chain)
    pek, _, cek = _split(chain)
    cek.validate(ask, Usage.ASK)
    pek.validate(cek.public_key(), cek.usage)
    Certificate.parse(pdh).validate(pek.public_key(), pek.usage)
    return pek.version


def validate_domain(pdh: bytes, chain: bytes, own_oca: bytes) -> None:
    """Check PDH <- PEK <- OCA, and that the OCA is ours (POLICY.DOMAIN)."""
    _check_lengths(pdh, chain)
    pek, oca, _ = _split(chain)
    oca.validate(oca.public_key(), oca.usage)
    pek.validate(oca.public_key(), oca.usage)
    Certificate.parse(pdh).validate(pek.public_key(), pek.usage)
    require(oca.data == own_oca, Status.POLICY_FAILURE)


def _check_lengths(pdh: bytes, chain: bytes) -> None:
    require(len(chain) == CHAIN_BYTES, Status.INVALID_LENGTH)
    require(len(pdh) == CERTIFICATE_BYTES, Status.INVALID_LENGTH)


def _split(chain: bytes) -> list[Certificate]:
    return [Certificate.parse(chain[at : at + CERTIFICATE_BYTES]) for at in range(0, CHAIN_BYTES, CERTIFICATE_BYTES)]
