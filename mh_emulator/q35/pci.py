"""PCI configuration space, by ports and by ECAM: a host bridge and an ISA bridge, nothing else.

Source: PCI Local Bus 3.0, section 3.2.2.3; PCI Express, section 7.2.2 (ECAM); QEMU, hw/pci-host/q35.c (IDs, PCIEXBAR),
hw/isa/lpc_ich9.c.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mh_emulator.q35.port import ones

PORTS = range(0xCF8, 0xD00)
ECAM_BYTES = 256 << 20
_DATA_PORT = 0xCFC
_FUNCTION_BYTES = 4096
_PORT_BYTES = 256
_ENABLED = 1 << 31
_HEADER = struct.Struct("<HHHHI")
_HEADER_TYPE = 0x0E
_MULTIFUNCTION = 0x80
_INTEL = 0x8086
_COMMAND = range(4, 6)
_SPECIFIC = 0x40
_PCIEXBAR = 0x60
_PCIEXBAR_ENABLED = 1 << 0
_MASK_256_MIB = ~(ECAM_BYTES - 1)


class PciState(NamedTuple):
    """The address register, and the configuration space of each function."""

    address: int
    functions: dict[int, bytes]


class Pci:
    """The functions of bus 0."""

    def __init__(self) -> None:
        self._address = 0
        self._bridge = _function(0x29C0, 0x060000, 0)
        self._functions = {0x0000: self._bridge, 31 << 3: _function(0x2918, 0x060100, _MULTIFUNCTION)}

    @property
    def state(self) -> PciState:
        """What it keeps."""
        return PciState(self._address, {number: bytes(data) for number, data in self._functions.items()})

    def restore(self, state: PciState) -> None:
        """Keep that; `ValueError` where it has other functions."""
        sizes = {number: len(data) for number, data in state.functions.items()}
        if sizes != dict.fromkeys(self._functions, _FUNCTION_BYTES):
            raise ValueError(f"PCI: functions of other sizes, or others: {sizes}")
        self._address = state.address
        for number, data in state.functions.items():
            self._functions[number][:] = data

    @property
    def ecam(self) -> range:
        """GPAs of ECAM, where the guest has put it; nowhere before."""
        bar = int.from_bytes(self._bridge[_PCIEXBAR : _PCIEXBAR + 8], "little")
        start = bar & _MASK_256_MIB if bar & _PCIEXBAR_ENABLED else 0
        return range(start, start + ECAM_BYTES if bar & _PCIEXBAR_ENABLED else start)

    def read(self, port: int, size: int) -> int:
        """The address register, or what it names."""
        if port < _DATA_PORT:
            return self._address >> 8 * (port - PORTS.start) & ones(size)
        at = self._named(port)
        return ones(size) if at is None else self.read_ecam(at, size)

    def write(self, port: int, size: int, value: int) -> None:
        """The same."""
        if port < _DATA_PORT:
            if port == PORTS.start and size == 4:
                self._address = value
            return
        at = self._named(port)
        if at is not None:
            self.write_ecam(at, size, value)

    def read_ecam(self, at: int, size: int) -> int:
        """`at` is bus, device, function and register as ECAM has them."""
        number, register = divmod(at, _FUNCTION_BYTES)
        function = self._functions.get(number)
        return ones(size) if function is None else int.from_bytes(function[register : register + size], "little")

    def write_ecam(self, at: int, size: int, value: int) -> None:
        """Registers that are not the header's keep what is written; of the header only the command does."""
        number, register = divmod(at, _FUNCTION_BYTES)
        function = self._functions.get(number)
        if function is None:
            return
        for where, byte in enumerate(value.to_bytes(size, "little"), register):
            if where in _COMMAND or _SPECIFIC <= where < _FUNCTION_BYTES:
                function[where] = byte

    def _named(self, port: int) -> int | None:
        if not self._address & _ENABLED:
            return None
        register = (self._address & (_PORT_BYTES - 4)) + port - _DATA_PORT
        return (self._address >> 8 & 0xFFFF) * _FUNCTION_BYTES + register


def _function(device: int, kind: int, header_type: int) -> bytearray:
    data = bytearray(_FUNCTION_BYTES)
    _HEADER.pack_into(data, 0, _INTEL, device, 0, 0, kind << 8)
    data[_HEADER_TYPE] = header_type
    return data
