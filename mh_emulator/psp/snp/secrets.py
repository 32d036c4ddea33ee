"""The secrets page: what the secure processor tells a guest that only the guest may know.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.h (snp_launch_update_secrets_page_t).
"""

from __future__ import annotations

import struct

from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp.context import KEY_BYTES, VMPCKS, SnpGuest
from mh_emulator.psp.snp.tsc import TSC_FACTOR

VERSION = 3
VMPCK_OFFSET = 0x20
"""Where VMPCK0 lies; the others follow."""
_PAGE = struct.Struct(f"<IIII16s{VMPCKS * KEY_BYTES}s96s64s32sI")


def make_page(guest: SnpGuest, signature: int) -> bytes:
    """The page of `guest` on a part whose CPUID 0000_0001 EAX is `signature`."""
    keys = b"".join(guest.vmpcks)
    page = _PAGE.pack(VERSION, guest.imi_en, signature, 0, guest.gosvw, keys, b"", b"", b"", TSC_FACTOR)
    return page.ljust(PAGE_BYTES, b"\0")
