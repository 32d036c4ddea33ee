"""RAM as the firmware's services see it."""

from __future__ import annotations

from mh_emulator.dram.process import pieces
from mh_emulator.kvm.vm import Vm
from mh_emulator.uefi.errors import FirmwareStopped


class GuestMemory:
    """RAM of `vm` by GPA, as its guest sees it through a private mapping; raises `FirmwareStopped` where none is."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes."""
        dram = self._vm.dram
        parts = [(self._spa(start), length) for start, length in pieces(gpa, size)]
        if self._vm.encrypted:
            return b"".join(dram.read_private(self._vm.asid, spa, length) for spa, length in parts)
        return b"".join(dram.read_raw(spa, length) for spa, length in parts)

    def write(self, gpa: int, data: bytes) -> None:
        """Store `data`."""
        for start, length in pieces(gpa, len(data)):
            part = data[start - gpa : start - gpa + length]
            if self._vm.encrypted:
                self._vm.dram.write_private(self._vm.asid, self._spa(start), part)
            else:
                self._vm.dram.write_raw(self._spa(start), part)

    def _spa(self, gpa: int) -> int:
        spa = self._vm.spa(gpa)
        if spa is None:
            raise FirmwareStopped(f"no RAM at {gpa:#x}")
        return spa
