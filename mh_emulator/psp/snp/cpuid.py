"""Lists of CPUID functions, in the CPUID page of a launch and in guest messages.

Source: AMD-ASPFW (SEV firmware 1.55.25), cpuid_lookup.h, cpuid_lookup.c (sanitize_cpuid_list). Counts, ranges and
reserved fields are checked; the registers themselves, which the firmware compares with what the part has, are not.
"""

from __future__ import annotations

import struct

from mh_emulator.psp.status import Status, require

COUNT_MAX = 64
LIST = struct.Struct("<IIQ")
FUNCTION = struct.Struct("<IIQQIIIIQ")
_RANGES = (range(0x1_0000), range(0x8000_0000, 0x8001_0000))


def check_page(page: bytes) -> None:
    """Check the CPUID page of a launch."""
    count, *reserved = LIST.unpack_from(page)
    require(not any(reserved), Status.INVALID_PARAM)
    check_functions(page[LIST.size :], count)


def check_functions(data: bytes, count: int) -> int:
    """Check the first `count` functions; return how many of them are of a range that the firmware knows."""
    require(count <= COUNT_MAX, Status.INVALID_PARAM)
    functions = [FUNCTION.unpack_from(data, at * FUNCTION.size) for at in range(count)]
    known = [fields for fields in functions if any(fields[0] in leaves for leaves in _RANGES)]
    require(not any(fields[-1] for fields in known), Status.INVALID_PARAM)
    return len(known)
