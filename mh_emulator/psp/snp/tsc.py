"""The time that a guest is given: scale and offset of its time-stamp counter.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c (calc_tsc_scale), sev_plat.h (REF_CLK_GENOA), sev_rmp.h
(TSC_FACTOR_GENOA): figures of Genoa, used for every part.
"""

from __future__ import annotations

import struct

REFERENCE_KHZ = 99_800
TSC_FACTOR = 200
_FRACTION_BITS = 32
_INTEGER_BITS = 8
_SEV_FEATURES, _SECURE_TSC = 0x3B0, 1 << 9
_SCALE = 0x2F0
_FIELDS = struct.Struct("<QQ")


def tsc_scale(khz: int) -> int:
    """GUEST_TSC_SCALE, 8.32 fixed point, rounded up."""
    whole, rest = divmod(khz, REFERENCE_KHZ)
    fraction = -(-(rest << _FRACTION_BITS) // REFERENCE_KHZ)
    return whole % (1 << _INTEGER_BITS) << _FRACTION_BITS | fraction % (1 << _FRACTION_BITS)


def set_in_vmsa(vmsa: bytes, khz: int, offset: int) -> bytes:
    """The VMSA with scale and offset, if SEV_FEATURES asks for SecureTSC."""
    (features,) = struct.unpack_from("<Q", vmsa, _SEV_FEATURES)
    if not features & _SECURE_TSC:
        return vmsa
    return vmsa[:_SCALE] + _FIELDS.pack(tsc_scale(khz), offset) + vmsa[_SCALE + _FIELDS.size :]
