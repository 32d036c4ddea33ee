"""VMRUN of an SNP guest: the RMP says whether a page is its VMSA, and the VMSA says at which VMPL it runs.

Source: AMD64 APM volume 2, sections 15.36.7 and 15.36.8, by recollection.
"""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_builder.save_area import SNP_ACTIVE, get
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.core import Core
from mh_emulator.cpu.eventinj import EventInjection
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.dram.dram import Dram
from mh_emulator.rmp.access import Guest, vmrun
from mh_emulator.rmp.entry import VMPLS
from mh_emulator.rmp.table import Rmp


class SnpVmsa:
    """The page at system physical address `spa`, for a guest with ASID `asid`."""

    def __init__(self, dram: Dram, rmp: Rmp, spa: int, asid: int) -> None:
        self._dram = dram
        self._rmp = rmp
        self._spa = spa
        self._asid = asid

    def run(self, core: Core, max_instructions: int | None = None, event: EventInjection | None = None) -> Intercept:
        """Load the state, run, store the state; INVALID for a page that is no VMSA, or a state that no CPU can have."""
        if not vmrun(self._rmp, Guest(self._asid), self._spa):
            return Intercept(Code.INVALID)
        page = self._dram.read_private(self._asid, self._spa, PAGE_BYTES)
        if core.held != page and not _load(core, page):
            return Intercept(Code.INVALID)
        stop = core.run(max_instructions, event)
        if stop.code is Code.INVALID:
            return stop
        page = vmsa.store_msrs(vmsa.store(page, core.get_registers()), core.msrs.saved)
        self._dram.write_private(self._asid, self._spa, page)
        core.held = page
        return stop


def _load(core: Core, page: bytes) -> bool:
    """Whether the CPU takes the state, which a guest may have written as it liked; it has no further features."""
    vmpl = get(page, "vmpl")
    if vmpl >= VMPLS or get(page, "sev_features") != SNP_ACTIVE or not get(page, "efer") & vmsa.EFER_SVME:
        return False
    try:
        core.set_registers(vmsa.load(page))
    except ValueError:
        return False
    core.msrs.saved = vmsa.load_msrs(page)
    core.vmpl = vmpl
    return True
