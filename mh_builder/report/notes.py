"""ELF notes of a dump: the control registers that QEMU leaves for each CPU.

Source: System V gABI, chapter 5 (notes); QEMU, target/i386/arch_dump.c (struct QEMUCPUState).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mh_builder.report.cpu import Cpu

_NOTE = struct.Struct("<III")
_QEMU, _CORE = b"QEMU\0", b"CORE\0"
_NARROW_STATUS = 144
"""Bytes of the general registers of a CPU without long mode (x86_elf_prstatus), which come before QEMU's notes."""
_CONTROL = struct.Struct("<392x5Q")
"""CR0 to CR4, behind version and size, 18 general registers and 10 segments of 24 bytes."""


def cpus_of(data: bytes) -> Iterator[Cpu]:
    """The CPUs that QEMU's notes in `data` are about, in their order."""
    is_wide = True
    for name, contents in _notes(data):
        if name == _CORE and len(contents) == _NARROW_STATUS:
            is_wide = False
        if name == _QEMU and len(contents) >= _CONTROL.size:
            cr0, _, _, cr3, cr4 = _CONTROL.unpack_from(contents)
            yield Cpu(cr0, cr3, cr4, is_wide=is_wide)


def _notes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, contents) of each note; both are padded to 4 bytes."""
    position = 0
    while position + _NOTE.size <= len(data):
        name_size, size, _ = _NOTE.unpack_from(data, position)
        position += _NOTE.size
        start = position + (name_size + 3 & -4)
        yield data[position : position + name_size], data[start : start + size]
        position = start + (size + 3 & -4)
