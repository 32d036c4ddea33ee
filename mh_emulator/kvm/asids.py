"""The ASIDs of one host, as KVM hands them out.

Source: Linux, arch/x86/kvm/svm/sev.c (sev_asid_new, sev_asid_free, sev_flush_asids).
"""

from __future__ import annotations

import errno
from typing import Protocol

from mh_builder.parts import Part
from mh_emulator.kvm.errors import KvmError


class Flushes(Protocol):
    """What makes ASIDs of guests that are gone usable again."""

    def wbinvd(self) -> None:
        """WBINVD on every core."""

    def df_flush(self) -> None:
        """DF_FLUSH."""


class AsidPool:
    """SEV-ES and SNP guests take the ASIDs below the part's `min_asid`, plain SEV guests the others."""

    def __init__(self, part: Part, psp: Flushes) -> None:
        self._psp = psp
        self._ranges = {False: range(part.min_asid, part.asids + 1), True: range(1, part.min_asid)}
        self._used: set[int] = set()
        self._reclaimable: set[int] = set()

    def take(self, ioctl: str, *, es: bool) -> int:
        """Return the lowest ASID without an owner.

        ENOTTY where the part has none of the kind, EBUSY where none is left.
        """
        if not self._ranges[es]:
            raise KvmError(errno.ENOTTY, ioctl)
        asid = self._lowest(es=es)
        if asid is None and not self._reclaimable.isdisjoint(self._ranges[es]):
            # Caches first, then the ASIDs of both kinds are clean again.
            self._psp.wbinvd()
            self._psp.df_flush()
            self._used -= self._reclaimable
            self._reclaimable.clear()
            asid = self._lowest(es=es)
        if asid is None:
            raise KvmError(errno.EBUSY, ioctl)
        self._used.add(asid)
        return asid

    def give_back(self, asid: int) -> None:
        """Take an ASID back for later."""
        self._reclaimable.add(asid)

    def _lowest(self, *, es: bool) -> int | None:
        return next((asid for asid in self._ranges[es] if asid not in self._used), None)
