"""A memory dump of whatever kind: its memory, and the CPUs whose registers are in it."""

from __future__ import annotations

import mmap
from dataclasses import replace
from typing import NamedTuple

from mh_builder.report.cpu import Cpu
from mh_builder.report.elf import Elf
from mh_builder.report.kdump import KdumpMemory, is_kdump
from mh_builder.report.physical import DumpError, PhysicalMemory, raw_dump

_OTHERS = {
    b"LibvirtQemudSave": "a saved guest of libvirt",
    b"LibvirtQemudPart": "a saved guest of libvirt, not finished",
    b"QEVM": "a migration stream of QEMU",
    b"QFI\xfb": "a disk image in qcow2",
    b"PAGEDUMP": "a crash dump of 32-bit Windows",
    b"PAGEDU64": "a crash dump of Windows",
    b"\xd2\xbe\xd2\xbe": "a saved guest of VMware",
    b"EMiL": "a LiME dump",
    b"\x1f\x8b": "compressed by gzip",
    b"\xfd7zXZ\0": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
}
"""How files begin that people take for dumps, and what they are."""


class Dump(NamedTuple):
    """Memory and CPUs; without CPUs nobody says where the tables are."""

    memory: PhysicalMemory
    cpus: tuple[Cpu, ...]

    def with_efer(self, efer: int | None) -> Dump:
        """The dump of CPUs that have this EFER, where it is said. Raises `DumpError` where there is no CPU."""
        if efer is None:
            return self
        if not self.cpus:
            raise DumpError(f"EFER {efer:#x}: the dump has the registers of no CPU")
        return Dump(self.memory, tuple(replace(cpu, efer=efer) for cpu in self.cpus))


def other_kind(data: bytes | mmap.mmap) -> str | None:
    """What the file is, where it is known and none of what is read here."""
    return next((what for start, what in _OTHERS.items() if data[: len(start)] == start), None)


def read_dump(data: bytes | mmap.mmap, start: int) -> Dump:
    """The dump in a file; of one without a header the first byte lies at GPA `start`. Raises `DumpError`."""
    if is_kdump(data):
        memory = KdumpMemory(data)
        return Dump(memory, tuple(memory.cpus()))
    return Dump(raw_dump(data, start), ())


def elf_dump(file: Elf) -> Dump:
    """The dump that an ELF core is. Raises `DumpError`."""
    return Dump(file.memory(), tuple(file.cpus()))


def chosen(cpus: tuple[Cpu, ...], number: int | None) -> Cpu | None:
    """The CPU that was asked for, the first without a word. Raises `DumpError` where there is none of that number."""
    if number is not None and number >= len(cpus):
        raise DumpError(f"CPU {number}: the dump has the registers of {len(cpus)}")
    return cpus[number or 0] if cpus else None
