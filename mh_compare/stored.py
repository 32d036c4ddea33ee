"""What a host sees of a helper in DRAM, past all encryption, while the helper works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES
from mh_compare.arena import Side
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.kvm.exits import Reason

_STARTS = range(0, PAGE_BYTES, BLOCK_BYTES)

Blocks = dict[int, bytes]
"""Stored bytes of 16-byte blocks, by their offset in the helper."""


def variables(image: Image) -> list[int]:
    """Offsets of the helper's private pages that it writes."""
    return [
        section.offset + at
        for section in image.sections
        if section.private and section.writable
        for at in range(0, section.size, PAGE_BYTES)
    ]


class Zeros:
    """What pages of zeros look like, by their offset in the helper."""

    def __init__(self, pages: Mapping[int, bytes]) -> None:
        self._pages = pages

    def at(self, place: int) -> bytes:
        """The block there."""
        start = place % PAGE_BYTES
        return self._pages[place - start][start : start + BLOCK_BYTES]


class Watch:
    """A host that looks at the variables of a helper, again and again.

    Stored bytes change where the plaintext does and nowhere else. They take long to make here, so it is the plaintext
    that says at which of them to look.
    """

    def __init__(self, side: Side, image: Image) -> None:
        self._side = side
        self._spas = {offset: side.helper_spa(offset) for offset in variables(image)}
        self._plain = self._read()

    def zeros(self) -> Zeros:
        """What zeros look like at each place: the host has seen that before the helper began."""
        seen = {}
        dram, asid = self._side.platform.dram, self._side.asid
        for (offset, spa), plain in zip(self._spas.items(), self._plain, strict=True):
            dram.write_private(asid, spa, bytes(PAGE_BYTES))
            seen[offset] = self._side.peek(spa)
            dram.write_private(asid, spa, plain)
        return Zeros(seen)

    def look(self) -> Blocks:
        """Return what has changed since the last look."""
        changed: Blocks = {}
        last, self._plain = self._plain, self._read()
        for (offset, spa), before, now in zip(self._spas.items(), last, self._plain, strict=True):
            if now != before:
                changed |= self._changes(offset, self._side.peek(spa), before, now)
        return changed

    def _changes(self, offset: int, page: bytes, before: bytes, now: bytes) -> Blocks:
        if self._side.hides_ciphertext:
            return {}
        places = (at for at in _STARTS if now[at : at + BLOCK_BYTES] != before[at : at + BLOCK_BYTES])
        return {offset + at: page[at : at + BLOCK_BYTES] for at in places}

    def _read(self) -> list[bytes]:
        data = self._side.platform.dram.read_pages(self._side.asid, list(self._spas.values()))
        return [data[at : at + PAGE_BYTES] for at in range(0, len(data), PAGE_BYTES)]

    def follow(self, stride: int) -> Iterator[Blocks]:
        """Let the helper go on, and interrupt it for a look after every `stride` instructions, until it leaves."""
        while True:
            exit_ = self._side.vcpu.run(stride)
            yield self.look()
            if exit_.reason is not Reason.LIMIT:
                return
