"""System memory of parts whose caches are not coherent between encryption domains: Naples and Rome.

A cache line there belongs to an ASID. What a guest writes stays in lines of its ASID, and another ASID, or the host,
reads what DRAM holds, until it is flushed (CPUID 8000_001F EAX[10] is 0; Linux, arch/x86/kvm/svm/sev.c,
sev_clflush_pages and sev_flush_encrypted_page). Here no line is evicted on its own account, so that what can be
stale, is; and accesses without the C-bit go straight to DRAM.
"""

from __future__ import annotations

from collections.abc import Sequence

from mh_builder.paging import PAGE_BYTES, PAGE_SHIFT
from mh_builder.parts import Part
from mh_emulator.dram.cipher import PageCipher
from mh_emulator.dram.dram import Dram

LINE_BYTES = 64

_KEY_BYTES = 16
_ASID_BYTES = 2


class IncoherentDram(Dram):
    """As `Dram`, where the page that is held is one of several copies, which only a flush makes agree.

    What `key` returns is the key and the ASID: the same key under two ASIDs is two views.
    """

    def __init__(self, size: int, base_spa: int, part: Part, seed: int) -> None:
        super().__init__(size, base_spa, part, seed)
        self._stored: dict[int, bytes] = {}
        """What DRAM holds of a frame that is held under a key."""
        self._filled: dict[int, dict[bytes, bytes]] = {}
        """What DRAM held when each cached copy of a frame was filled."""
        self._copies: dict[int, dict[bytes, bytes]] = {}
        """Cached copies of a frame, without the one that is held."""

    def install_key(self, asid: int, key: bytes) -> None:
        """Give the memory controller the 16-byte `key` of `asid`."""
        super().install_key(asid, key + asid.to_bytes(_ASID_BYTES, "little"))

    def _converted(self, frame: int, page: bytes, key: bytes | None) -> bytes:
        """What the caches have for that view, else what DRAM has."""
        held, stored = self._held(frame), page
        if held is not None:
            self._copies.setdefault(frame, {})[held] = page
            stored = self._stored.pop(frame)
        if key is None:
            return stored
        self._stored[frame] = stored
        return self._cached(frame, key, stored)

    def peek_raw(self, spa: int) -> bytes:
        """Return the raw bytes of the page of `spa`, as DRAM holds them."""
        frame = self.frame(spa)
        return self._stored.get(frame) or self._content(frame)

    def cached(self, spa: int, key: bytes) -> tuple[bytes, bytes] | None:
        """What caches have of the page of `spa` for `key`, and what DRAM held when they took it; None: as now."""
        frame = self.frame(spa)
        filled = self._filled.get(frame, {}).get(key)
        if filled is None:
            return None
        copy = self._content(frame) if self._held(frame) == key else self._copies[frame][key]
        is_same = self.peek_raw(spa) == filled == self._cipher(key).encrypt(copy, spa & -PAGE_BYTES)
        return None if is_same else (copy, filled)

    def cache(self, spa: int, key: bytes, copy: bytes, filled: bytes) -> None:
        """Have caches hold that again, of a page of which they hold nothing."""
        self.own(spa, None)
        frame = self.frame(spa)
        self._copies.setdefault(frame, {})[key] = copy
        self._filled.setdefault(frame, {})[key] = filled

    def encrypt_pages(self, asid: int, spas: Sequence[int]) -> bytes:
        """As `Dram` does, with what caches hold written back and forgotten before and after."""
        self._flush_pages(spas)
        data = self.read_raw_pages(spas)
        self.write_private_pages(asid, spas, data)
        self._flush_pages(spas)
        return data

    def _flush_pages(self, spas: Sequence[int]) -> None:
        for spa in spas:
            self.flush(spa, PAGE_BYTES)

    def flush(self, spa: int, size: int) -> None:
        """Write back the lines of all ASIDs in the pages of these bytes, and forget them."""
        for frame in range(self.frame(spa), self.frame(spa + size - 1) + 1):
            if frame in self._filled:
                self._flush_frame(frame)

    def flush_all(self) -> None:
        """Write back the lines of all ASIDs in all of memory, and forget them."""
        for frame in list(self._filled):
            self._flush_frame(frame)

    def _flush_frame(self, frame: int) -> None:
        address = self.base_spa + (frame << PAGE_SHIFT)
        self.own(address, None)
        stored = bytearray(self._page(frame))
        copies, filled = self._copies.pop(frame), self._filled.pop(frame)
        for view, copy in copies.items():
            _write_dirty_lines(stored, self._cipher(view).encrypt(copy, address), filled[view])
        self._page(frame)[:] = stored

    def _cached(self, frame: int, key: bytes, stored: bytes) -> bytes:
        copy = self._copies.get(frame, {}).pop(key, None)
        if copy is None:
            self._filled.setdefault(frame, {})[key] = stored
            copy = self._cipher(key).decrypt(stored, self.base_spa + (frame << PAGE_SHIFT))
        return copy

    def _replace(self, frame: int, key: bytes | None) -> None:
        self.own(self.base_spa + (frame << PAGE_SHIFT), key)

    def _cipher(self, key: bytes) -> PageCipher:
        return super()._cipher(key[:_KEY_BYTES])


def _write_dirty_lines(stored: bytearray, written: bytes, filled: bytes) -> None:
    """Put those lines of `written` into `stored` that are not as they were when they were filled."""
    if written == filled:
        return
    if stored == filled:
        stored[:] = written
        return
    for line in range(0, PAGE_BYTES, LINE_BYTES):
        end = line + LINE_BYTES
        if written[line:end] != filled[line:end]:
            stored[line:end] = written[line:end]
