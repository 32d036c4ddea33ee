"""Segments of long mode that hide nothing, the GDT that has them, and gates that lead to them.

Source: AMD64 APM volume 2, sections 4.8 (descriptors) and 4.8.4 (gates).
"""

from __future__ import annotations

import struct

CODE, DATA = 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF
"""Descriptors for CPL 0: execute and read, 64 bits; read and write."""
CS, SS = 0x08, 0x10
"""Their selectors in `GDT`."""
GDT = struct.pack("<3Q", 0, CODE, DATA)

GATE_BYTES = 16
INTERRUPT_GATE = 0x8E
"""Type of a gate: present, for CPL 0, and interrupts are off behind it."""


def interrupt_gate(handler: int, selector: int = CS) -> bytes:
    """An interrupt gate to `handler`, a virtual address."""
    low, middle, high = handler & 0xFFFF, handler >> 16 & 0xFFFF, handler >> 32
    return struct.pack("<HHBBHII", low, selector, 0, INTERRUPT_GATE, middle, high, 0)
