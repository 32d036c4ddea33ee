"""X25519 in Python as RFC 7748, 5 writes it: slow, with no care for time, and simple enough to read beside the text."""

from __future__ import annotations

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the base point, RFC 7748, 4.1
TWIST_ORDER = 2 * P + 2 - 8 * ORDER  # points on curve and twist are 2p + 2; the twist has 4 times a prime
TWIST_PRIME = TWIST_ORDER // 4


def ladder(scalar: int, u: int) -> int:
    """The u of `scalar` times the point with `u`, 0 for the neutral element, without clamping."""
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in reversed(range(256)):
        swap = scalar >> bit & 1
        if swap:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if swap:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return x2 * pow(z2, P - 2, P) % P


def clamp(scalar: bytes) -> int:
    """decodeScalar25519."""
    return int.from_bytes(scalar, "little") & (2**255 - 8) | 2**254


def encode(value: int) -> bytes:
    """32 bytes, little-endian; `value` need not be below p."""
    return value.to_bytes(32, "little")


def x25519(scalar: bytes, u: bytes) -> bytes:
    """The function of RFC 7748, 5."""
    return encode(ladder(clamp(scalar), int.from_bytes(u, "little") % 2**255 % P))
