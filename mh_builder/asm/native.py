"""Assembled code in this process's memory, to be run as user code of the computer that this is."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys

from mh_builder.asm.objectfile import ObjectFile
from mh_builder.paging import whole_pages


def is_possible() -> bool:
    """Whether this process executes x86-64 code that keeps to the System V ABI."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 1 << 32


def offsets(name: str, structure: type[ctypes.Structure]) -> dict[str, int]:
    """`name.FIELD` for each field of a structure: how far from its start it lies, as symbols for the assembler."""
    return {f"{name}.{field[0]}": getattr(structure, field[0]).offset for field in structure._fields_}


class Memory:
    """Page-aligned memory of this process."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, whole_pages(size))
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def write(self, offset: int, data: bytes) -> None:
        """Copy bytes to `offset`."""
        self._map[offset : offset + len(data)] = data

    def make_executable(self, offset: int, size: int) -> None:
        """Make the pages of a range readable and executable, and no longer writable; raise `OSError`."""
        libc = ctypes.CDLL(None, use_errno=True)
        length = whole_pages(size)
        if libc.mprotect(ctypes.c_void_p(self.base + offset), ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "mprotect")


class Functions:
    """The functions of a file that has nothing but its text, and no relocations."""

    def __init__(self, unit: ObjectFile) -> None:
        (section,) = (one for one in unit.sections if one.size)
        if section.relocations:
            raise ValueError(f"{section.relocations[0].place}: not a reference within the text")
        self._memory = Memory(section.size)
        self._memory.write(0, section.data)
        self._memory.make_executable(0, section.size)
        self._values = {symbol.name: symbol.value for symbol in unit.symbols}

    def address(self, name: str) -> int:
        """Where one begins in this process."""
        return self._memory.base + self._values[name]


class Function:
    """One of these functions."""

    def __init__(self, unit: ObjectFile, name: str) -> None:
        self._all = Functions(unit)
        self.address = self._all.address(name)
