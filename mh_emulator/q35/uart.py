"""A serial port, of which only the sender works: at once, and without interrupts. A driver polls which it would have.

Source: National Semiconductor PC16550D; QEMU, hw/char/serial.c.
"""

from __future__ import annotations

from typing import NamedTuple

from mh_emulator.q35.console import Console

COM1, COM2 = range(0x3F8, 0x400), range(0x2F8, 0x300)
_DATA, _ENABLE, _FIFO, _LINE, _MODEM, _STATUS, _MODEM_STATUS, _SCRATCH = range(8)
_DIVISOR_LATCH = 1 << 7
_LOOP = 1 << 4
_IDLE, _NO_INTERRUPT, _SENT, _FIFOS_ON = 0x60, 0x01, 0x02, 0xC0
_WANTS_SENT = 1 << 1
_RECEIVED = 1 << 0
_CONNECTED = 0xB0
"""CTS, DSR and DCD, as QEMU has them of a backend that is open."""


_REGISTERS, _DIVISOR_BYTES, _LOOPED_MOST = 8, 2, 16


class UartState(NamedTuple):
    """Registers, divisor, bytes in its own receiver, and whether the interrupt of an empty sender waits."""

    kept: bytes
    divisor: bytes
    looped: bytes
    has_sent: bool


class Uart:
    """At `ports`; what is sent is printed on `console`."""

    def __init__(self, ports: range, console: Console) -> None:
        self._start = ports.start
        self._console = console
        self._kept = bytearray(_REGISTERS)
        self._divisor = bytearray(_DIVISOR_BYTES)
        self._looped: list[int] = []
        self._has_sent = False
        """Whether the interrupt of an empty sender waits: until the driver has seen it."""

    @property
    def state(self) -> UartState:
        """What it keeps."""
        return UartState(bytes(self._kept), bytes(self._divisor), bytes(self._looped), self._has_sent)

    def restore(self, state: UartState) -> None:
        """Keep that; `ValueError` where it has other registers."""
        sizes = len(state.kept), len(state.divisor)
        if sizes != (_REGISTERS, _DIVISOR_BYTES) or len(state.looped) > _LOOPED_MOST:
            raise ValueError(f"serial port: registers of {sizes} bytes, and {len(state.looped)} received")
        self._kept, self._divisor = bytearray(state.kept), bytearray(state.divisor)
        self._looped, self._has_sent = [*state.looped], state.has_sent

    def read(self, port: int, _size: int) -> int:
        """A register."""
        register = port - self._start
        if register <= _ENABLE and self._kept[_LINE] & _DIVISOR_LATCH:
            return self._divisor[register]
        if register == _DATA:
            return self._looped.pop(0) if self._looped else 0
        if register == _FIFO:
            return self._identify() | (_FIFOS_ON if self._kept[_FIFO] & 1 else 0)
        if register == _STATUS:
            return _IDLE | (_RECEIVED if self._looped else 0)
        if register == _MODEM_STATUS:
            return (self._kept[_MODEM] << 4 | self._kept[_MODEM] >> 1 & 1) & 0xF0 if self._loops else _CONNECTED
        return self._kept[register]

    def write(self, port: int, _size: int, value: int) -> None:
        """A register."""
        register = port - self._start
        if register <= _ENABLE and self._kept[_LINE] & _DIVISOR_LATCH:
            self._divisor[register] = value & 0xFF
        elif register != _DATA:
            self._kept[register] = value & 0xFF
            self._has_sent |= register == _ENABLE
        elif self._loops:
            self._looped = [*self._looped[1 - _LOOPED_MOST :], value & 0xFF]
        else:
            self._console.put(value & 0xFF)
            self._has_sent = True

    def _identify(self) -> int:
        if not (self._has_sent and self._kept[_ENABLE] & _WANTS_SENT):
            return _NO_INTERRUPT
        self._has_sent = False
        return _SENT

    @property
    def _loops(self) -> bool:
        return bool(self._kept[_MODEM] & _LOOP)
