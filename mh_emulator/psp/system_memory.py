"""System memory, as the secure processor reaches it: any address, under the key of any guest.

Source: AMD-ASPFW, x86_copy.c; sev_mcmd.c (set_misc_read_sized_wrbkinvd: where the processor evicts cache lines first).
"""

from __future__ import annotations

from collections.abc import Sequence

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.dram import BLOCK_BYTES, Dram
from mh_emulator.psp.status import Refused, Status, require


class SystemMemory:
    """DRAM; addresses may have the C-bit, which is ignored, and are refused where there is no memory."""

    def __init__(self, dram: Dram) -> None:
        self._dram = dram
        self._address_mask = ~(1 << dram.part.c_bit)

    def plain(self, spa: int) -> int:
        """The address without the C-bit."""
        return spa & self._address_mask

    def check(self, spa: int, size: int) -> int:
        """Refuse what is not all memory; return the address without the C-bit."""
        plain = self.plain(spa)
        require(self._dram.base_spa <= plain <= self._dram.base_spa + self._dram.size - size, Status.INVALID_ADDRESS)
        return plain

    def flush_all(self) -> None:
        """Every core writes back its caches."""
        self._dram.flush_all()

    def read(self, spa: int, size: int, *, evict: bool = False) -> bytes:
        """Read as stored; with `evict` what caches hold is written back before, and forgotten."""
        plain = self.check(spa, size)
        if evict:
            self._dram.flush(plain, size)
        return self._dram.read_raw(plain, size)

    def write(self, spa: int, data: bytes) -> None:
        """Write as stored."""
        self._dram.write_raw(self.check(spa, len(data)), data)

    def read_private(self, asid: int, spa: int, size: int) -> bytes:
        """Read under the key of `asid`, and see what its guest sees: caches are coherent within an ASID."""
        return self._dram.read_private(asid, self.check(spa, size), size)

    def encrypt_pages(self, asid: int, spas: Sequence[int]) -> bytes:
        """Encrypt pages in place under the key of `asid`, and return what they held as stored.

        What caches hold of them is written back before; no cache has another view of them afterwards.
        """
        plain = [self.check(spa, PAGE_BYTES) for spa in spas]
        return self._dram.encrypt_pages(asid, plain)

    def write_private(self, asid: int, spa: int, data: bytes, *, evict: bool = False) -> None:
        """Write under the key of `asid`; with `evict` no cache has another view of it afterwards."""
        plain = self.check(spa, len(data))
        if evict:
            self._dram.flush(plain, len(data))
        self._dram.write_private(asid, plain, data)
        if evict:
            self._dram.flush(plain, len(data))


def check_alignment(*addresses: int) -> None:
    """Refuse an address that is not that of a block."""
    for address in addresses:
        if address % BLOCK_BYTES:
            raise Refused(Status.INVALID_ADDRESS)
