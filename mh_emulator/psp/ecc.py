"""Public keys on P-384 and ECDSA signatures, as the firmware's structures hold them: least significant byte first.

Source: SEV API (AMD 55766), appendix C.1; AMD-ASPFW, ecc.h.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from mh_emulator.psp.crypto import CURVE

_CURVE_P384 = 2
_SCALAR_BYTES = 72
_KEY = struct.Struct(f"<I{_SCALAR_BYTES}s{_SCALAR_BYTES}s")


def pack_key(public: ec.EllipticCurvePublicKey) -> bytes:
    """Curve, X and Y; the area that holds a key is longer, and zero behind them."""
    numbers = public.public_numbers()
    return _KEY.pack(_CURVE_P384, _number(numbers.x), _number(numbers.y))


def parse_key(area: bytes) -> ec.EllipticCurvePublicKey:
    """The key. Raises `ValueError` where that is no point on P-384."""
    curve, x, y = _KEY.unpack_from(area)
    if curve != _CURVE_P384:
        raise ValueError(f"curve {curve} is not P-384, which is {_CURVE_P384}")
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "little"), int.from_bytes(y, "little"), CURVE).public_key()


def ecdsa_sign(key: ec.EllipticCurvePrivateKey, message: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    """R and S, 72 bytes each."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm, deterministic_signing=True)))
    return _number(r) + _number(s)


def ecdsa_verify(
    key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes, algorithm: hashes.HashAlgorithm
) -> bool:
    """Whether `ecdsa_sign` made `signature`."""
    r, s = (int.from_bytes(signature[at : at + _SCALAR_BYTES], "little") for at in (0, _SCALAR_BYTES))
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _number(value: int) -> bytes:
    return value.to_bytes(_SCALAR_BYTES, "little")
