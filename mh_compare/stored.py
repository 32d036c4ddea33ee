"""DRAM as its host has it: stored bytes, past all encryption, of one page or of everything private in a helper."""

from __future__ import annotations

from collections.abc import Iterator

from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES
from mh_compare.arena import Side
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.host.machine import Machine
from mh_emulator.kvm.exits import Reason

_STARTS = range(0, PAGE_BYTES, BLOCK_BYTES)

Blocks = dict[int, bytes]
"""Stored bytes of 16-byte blocks, by their offset in the helper."""


def peek(machine: Machine, spa: int) -> bytes:
    """The page of `spa` as DRAM holds it once the host has flushed the caches: what the guest wrote last is in it."""
    dram = machine.platform.dram
    dram.flush(spa & -PAGE_BYTES, PAGE_BYTES)
    return dram.peek_raw(spa)


def poke(machine: Machine, spa: int, data: bytes) -> None:
    """Write past all encryption, and past what caches may still hold or keep."""
    dram = machine.platform.dram
    dram.flush(spa & -PAGE_BYTES, PAGE_BYTES)
    dram.write_raw(spa, data)
    dram.flush(spa & -PAGE_BYTES, PAGE_BYTES)


def variables(image: Image) -> list[int]:
    """Offsets of the helper's private pages that it writes."""
    return [
        section.offset + at
        for section in image.sections
        if section.private and section.writable
        for at in range(0, section.size, PAGE_BYTES)
    ]


class Watch:
    """A host that looks at the variables of a helper, again and again.

    Stored bytes change where the plaintext does and nowhere else. They take long to make here, so it is the plaintext
    that says at which of them to look.
    """

    def __init__(self, machine: Machine, image: Image) -> None:
        self._machine = machine
        self._spas = {offset: machine.helper_memory.spa(machine.helper_offset + offset) for offset in variables(image)}
        self._plain = {offset: self._read(spa) for offset, spa in self._spas.items()}

    @property
    def blocks(self) -> Blocks:
        """All of them, as they are now."""
        pages = {offset: peek(self._machine, spa) for offset, spa in self._spas.items()}
        return {offset + at: page[at : at + BLOCK_BYTES] for offset, page in pages.items() for at in _STARTS}

    def look(self) -> Blocks:
        """Return what has changed since the last look."""
        changed: Blocks = {}
        for offset, spa in self._spas.items():
            before, now = self._plain[offset], self._read(spa)
            if now != before:
                self._plain[offset] = now
                page = peek(self._machine, spa)
                places = (at for at in _STARTS if now[at : at + BLOCK_BYTES] != before[at : at + BLOCK_BYTES])
                changed |= {offset + at: page[at : at + BLOCK_BYTES] for at in places}
        return changed

    def _read(self, spa: int) -> bytes:
        return self._machine.platform.dram.read_private(self._machine.asid, spa, PAGE_BYTES)

    def follow(self, side: Side, stride: int) -> Iterator[Blocks]:
        """Let the helper go on, and interrupt it for a look after every `stride` instructions, until it leaves."""
        while True:
            exit_ = side.machine.mirror.vcpu.run(stride)
            yield self.look()
            if exit_.reason is not Reason.LIMIT:
                return
