"""Pages of a host of SNP guests, as its kernel gives them away and takes them back.

Source: Linux, arch/x86/virt/svm/sev.c (rmp_make_private, rmp_make_shared), drivers/crypto/ccp/sev-dev.c
(snp_alloc_firmware_page, snp_reclaim_pages). Entries of 2 MiB are not made.
"""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.dram import Dram
from mh_emulator.psp.snp.firmware import SnpFirmware
from mh_emulator.rmp.access import HIDDEN_BYTE, host_reads_ciphertext, host_write
from mh_emulator.rmp.fault import Fault
from mh_emulator.rmp.instructions import Code, NewState, rmpupdate
from mh_emulator.rmp.table import Rmp


class RmpUpdateError(Exception):
    """RMPUPDATE did not do what the host wanted."""

    def __init__(self, spa: int, code: Code) -> None:
        super().__init__(f"RMPUPDATE of {spa:#x}: {code.name} ({code.value})")
        self.code = code


class HostFaultError(Exception):
    """#PF in the host: it has written to a page that is not its own."""

    def __init__(self, spa: int, fault: Fault) -> None:
        super().__init__(f"{fault.told} at {spa:#x}")
        self.fault = fault


class HostMemory:
    """Pages that the kernel has taken for itself or for guests; `hiding` is a part that hides ciphertext from it."""

    def __init__(self, dram: Dram, rmp: Rmp, psp: SnpFirmware, *, hiding: bool = False) -> None:
        self._dram = dram
        self._rmp = rmp
        self._psp = psp
        self._hiding = hiding
        self._free: list[int] = []

    def page(self, data: bytes = b"") -> int:
        """A page of the kernel's own, with `data` and zeros."""
        is_new = not self._free
        spa = self._dram.allocate() if is_new else self._free.pop()
        if data or not is_new:
            self._dram.write_raw(spa, data.ljust(PAGE_BYTES, b"\0"))
        return spa

    def free(self, spa: int) -> None:
        """Give a page of the kernel's own back."""
        self._free.append(spa)

    def make_private(self, spa: int, new: NewState) -> None:
        """RMPUPDATE. Raises `RmpUpdateError`."""
        code = rmpupdate(self._rmp, spa, new)
        if code is not Code.SUCCESS:
            raise RmpUpdateError(spa, code)

    def make_shared(self, spa: int) -> None:
        """Take a page from a guest. Raises `RmpUpdateError`."""
        self.make_private(spa, NewState(assigned=False))

    def donate(self) -> int:
        """A page for the secure processor."""
        spa = self.page()
        self.make_private(spa, NewState(assigned=True, immutable=True))
        return spa

    def reclaim(self, spa: int) -> None:
        """Take a page from the secure processor. Raises `CommandError` or `RmpUpdateError`."""
        self._psp.page_reclaim(spa)
        self.make_shared(spa)

    def write(self, spa: int, data: bytes) -> None:
        """Write as the kernel does, with all its rights. Raises `HostFaultError`."""
        fault = host_write(self._rmp, spa)
        if fault is not None:
            raise HostFaultError(spa, fault)
        self._dram.write_raw(spa, data)

    def read(self, spa: int, size: int) -> bytes:
        """Read within one page as the kernel does: ciphertext where a guest wrote, or what hides it."""
        if host_reads_ciphertext(self._rmp, spa, hiding=self._hiding):
            return self._dram.read_raw(spa, size)
        return bytes([HIDDEN_BYTE]) * size
