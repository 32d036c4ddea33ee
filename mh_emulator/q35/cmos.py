"""CMOS RAM and its clock, which stands still: OVMF reads from it how much RAM there is.

Source: QEMU, hw/i386/pc.c (pc_cmos_init), hw/rtc/mc146818rtc.c; the registers are those of the MC146818.
"""

from __future__ import annotations

from typing import NamedTuple

from mh_builder.paging import MIB

PORTS = range(0x70, 0x72)
_REGISTERS = 128
_UNIT = 64 << 10
_BASE_KIB, _MOST_EXTENDED_KIB = 640, 0xFFFF
_SINCE_1_MIB, _SINCE_16_MIB, _SINCE_4_GIB = 0x30, 0x34, 0x5B
_STATUS_A, _STATUS_B, _STATUS_C, _STATUS_D = range(0x0A, 0x0E)
_A_32_KHZ, _B_24_HOURS, _D_VALID = 0x26, 0x02, 0x80
_READ_ONLY = {_STATUS_C, _STATUS_D}
"""edk2's driver writes zero to D, and takes the clock for dead that then says so."""
_CENTURY = 0x32
_DATE = {0x00: 0x00, 0x02: 0x00, 0x04: 0x12, 0x06: 0x05, 0x07: 0x01, 0x08: 0x01, 0x09: 0x26, _CENTURY: 0x20}
"""Thursday, 1 January 2026, noon; in BCD."""
SECONDS = 1_767_268_800
"""The same, in UTC, since 1970."""


class CmosState(NamedTuple):
    """The register that is chosen, and all of them."""

    chosen: int
    data: bytes


class Cmos:
    """CMOS of a machine with `below` bytes of RAM under 4 GiB and `above` bytes from there."""

    def __init__(self, below: int, above: int) -> None:
        self._index = 0
        self._data = bytearray(_REGISTERS)
        for at, value in _DATE.items():
            self._data[at] = value
        self._data[_STATUS_A], self._data[_STATUS_B], self._data[_STATUS_D] = _A_32_KHZ, _B_24_HOURS, _D_VALID
        self._put(0x15, _BASE_KIB, 2)
        extended = min(max(below - MIB, 0) >> 10, _MOST_EXTENDED_KIB)
        self._put(0x17, extended, 2)
        self._put(_SINCE_1_MIB, extended, 2)
        self._put(_SINCE_16_MIB, max(below - 16 * MIB, 0) // _UNIT, 2)
        self._put(_SINCE_4_GIB, above // _UNIT, 3)

    @property
    def state(self) -> CmosState:
        """What it keeps."""
        return CmosState(self._index, bytes(self._data))

    def restore(self, state: CmosState) -> None:
        """Keep that; `ValueError` where it has other registers."""
        if len(state.data) != _REGISTERS or state.chosen >= _REGISTERS:
            raise ValueError(f"CMOS: register {state.chosen:#x} of {len(state.data):#x}, not of {_REGISTERS:#x}")
        self._index, self._data = state.chosen, bytearray(state.data)

    def read(self, port: int, _size: int) -> int:
        """The register that was chosen, or which one that is."""
        return self._data[self._index] if port == PORTS[1] else self._index

    def write(self, port: int, _size: int, value: int) -> None:
        """Choose a register, or write it."""
        if port == PORTS[1]:
            if self._index not in _READ_ONLY:
                self._data[self._index] = value & 0xFF
        else:
            self._index = value % _REGISTERS

    def _put(self, at: int, value: int, size: int) -> None:
        self._data[at : at + size] = value.to_bytes(size, "little")
