"""VMRUN of an SEV-ES guest: registers live in an encrypted page, and the hypervisor never has them.

Source: AMD64 APM volume 2, section 15.35; AMD-ASPFW, sev_es.c (the checksum).
"""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.core import Core
from mh_emulator.cpu.eventinj import EventInjection
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.dram.dram import Dram
from mh_emulator.psp.vmsa import BadVmsaError, TrustedRegion


class Vmsa:
    """The VMSA at system physical address `spa` of a guest with ASID `asid`; `region` holds the checksums."""

    def __init__(self, dram: Dram, spa: int, asid: int, region: TrustedRegion | None) -> None:
        self._dram = dram
        self._spa = spa
        self._asid = asid
        self._region = region

    def run(self, core: Core, max_instructions: int | None = None, event: EventInjection | None = None) -> Intercept:
        """Load the state, run, store the state; INVALID where the page is not as launch or last exit left it.

        The VMCB has EVENTINJ, which the hypervisor writes as it likes.
        """
        page = self._dram.read_private(self._asid, self._spa, PAGE_BYTES)
        if self._region is None:
            return Intercept(Code.INVALID)
        try:
            self._region.validate(page)
        except BadVmsaError:
            return Intercept(Code.INVALID)
        if core.held != page:
            core.set_registers(vmsa.load(page))
            core.msrs.saved = vmsa.load_msrs(page)
        stop = core.run(max_instructions, event)
        if stop.code is Code.INVALID:
            return stop
        page = vmsa.store_msrs(vmsa.store(page, core.get_registers()), core.msrs.saved)
        self._dram.write_private(self._asid, self._spa, page)
        self._region.update(page)
        core.held = page
        return stop
