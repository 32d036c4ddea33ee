"""IN and OUT: the host's devices.

Source: Linux, arch/x86/kvm/x86.c (kvm_fast_pio).
"""

from __future__ import annotations

from mh_emulator.cpu.devices import Devices
from mh_emulator.cpu.intercepts import Intercept
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.frame import Frame


def begin(frame: Frame, stop: Intercept) -> Exit:
    """The exit for the access."""
    value = frame.read("rax") & _mask(stop.size) if stop.is_write else 0
    return Exit(Reason.IO, port=stop.port, size=stop.size, value=value, is_write=stop.is_write)


def serve(frame: Frame, stop: Intercept, devices: Devices) -> None:
    """Have devices answer at once."""
    if stop.is_write:
        devices.write_port(stop.port, stop.size, frame.read("rax") & _mask(stop.size))
    finish(frame, stop, 0 if stop.is_write else devices.read_port(stop.port, stop.size))


def finish(frame: Frame, stop: Intercept, value: int) -> None:
    """Complete the instruction; an input gets what the host has read."""
    if not stop.is_write:
        # 32 bits clear the upper half of RAX, fewer keep all else.
        kept = 0 if stop.size == 4 else frame.read("rax") & ~_mask(stop.size)
        frame.write("rax", kept | value & _mask(stop.size))
    frame.done()


def _mask(size: int) -> int:
    return (1 << 8 * size) - 1
