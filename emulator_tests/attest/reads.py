"""Which bytes of its ring a helper of an SNP guest reads and writes."""

from __future__ import annotations

from collections import Counter

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm import SnpVcpu

TAIL = abi.mh_ring.fields["tail"].offset


class Reads:
    """What a helper reads of its ring, by offset, but for the tails, and what it writes."""

    def __init__(self, memory: UserMemory, ring: int, vcpu: SnpVcpu) -> None:
        """`ring` is its offset in `memory`."""
        self._places = {memory.spa(ring + at): at for at in range(0, abi.MH_RING_BYTES, PAGE_BYTES)}
        self.reads: Counter[int] = Counter()
        self.writes: Counter[int] = Counter()
        vcpu.trace_memory(self._note)

    def _note(self, spa: int, size: int, is_write: bool) -> None:
        page = self._places.get(spa & -PAGE_BYTES)
        if page is None:
            return
        for byte in range(page + spa % PAGE_BYTES, page + spa % PAGE_BYTES + size):
            if not TAIL <= byte < TAIL + 8:
                (self.writes if is_write else self.reads)[byte] += 1
