"""A Linux guest under QEMU, stopped while its first process works: its memory, and what QEMU says of its tables."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

from mh_builder.asm import assemble
from mh_emulator.linux.initramfs import archive
from mh_qemu.machine import QemuMachine

RAM_MIB = 96
_LOAD = 0x400000
_COMMAND_LINE = "console=ttyS0 panic=-1 no_timer_check"
"""Without the last word a kernel whose timer ticks late, because this computer is busy, gives up (check_timer)."""


class Snapshot(NamedTuple):
    """A stopped guest."""

    raw: Path
    """RAM from GPA 0, as `pmemsave` writes it."""
    elf: Path
    """The same as `dump-guest-memory` writes it."""
    mapped: Path
    """What is mapped of it: `dump-guest-memory -p`, with a segment for each mapping."""
    compressed: Path
    """`dump-guest-memory -z`."""
    cr3: int
    levels: int
    tlb: frozenset[tuple[int, int, str]]
    """`info tlb`: (virtual address, GPA, flags) of each page."""
    mem: tuple[tuple[int, int, str], ...]
    """`info mem`: (start, end, rights) of each range; QEMU 7.2 prints none for 5 levels."""
    serial: str
    """What the kernel said, and its first process."""


def boot(kernel: Path, folder: Path, cpu: str) -> Snapshot:
    """Boot a guest with QEMU's `cpu`, stop it when its first process runs, and take a snapshot."""
    initrd, raw, elf = folder / "initrd", folder / "raw", folder / "elf"
    mapped, compressed = folder / "mapped", folder / "compressed"
    initrd.write_bytes(archive({"init": _program()}))
    arguments = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", _COMMAND_LINE]
    with QemuMachine(arguments, ram_mib=RAM_MIB, cpu=cpu) as machine:
        machine.wait_for_serial("init is working", seconds=100)
        machine.stop()
        registers = machine.qmp.monitor("info registers")
        tlb = machine.qmp.monitor("info tlb")
        serial = machine.serial
        levels = 5 if _register(registers, "CR4") & 1 << 12 else 4
        # QEMU 7.2 takes a quarter of a minute to print nothing for 5 levels.
        mem = machine.qmp.monitor("info mem") if levels == 4 else ""
        machine.save_memory(0, RAM_MIB << 20, raw)
        machine.qmp.execute("dump-guest-memory", {"paging": False, "protocol": f"file:{elf}"})
        machine.qmp.execute("dump-guest-memory", {"paging": True, "protocol": f"file:{mapped}"})
        kdump = {"paging": False, "protocol": f"file:{compressed}", "format": "kdump-zlib"}
        machine.qmp.execute("dump-guest-memory", kdump)
    return Snapshot(
        raw,
        elf,
        mapped,
        compressed,
        _register(registers, "CR3"),
        levels,
        frozenset(tlb_of(tlb)),
        tuple(mem_of(mem)),
        serial,
    )


def _register(text: str, name: str) -> int:
    found = re.search(rf"\b{name}=([0-9a-f]+)", text)
    assert found is not None, text
    return int(found[1], 16)


def tlb_of(text: str) -> list[tuple[int, int, str]]:
    """`info tlb`: (virtual address, GPA, flags) of each page."""
    rows = [re.fullmatch(r"([0-9a-f]{16}): ([0-9a-f]{16}) (\S{9})", line) for line in text.splitlines()]
    assert rows
    assert all(rows)
    return [(int(row[1], 16), int(row[2], 16), row[3]) for row in rows if row]


def mem_of(text: str) -> list[tuple[int, int, str]]:
    """`info mem`: (start, end, rights) of each range."""
    rows = [re.fullmatch(r"([0-9a-f]{16})-([0-9a-f]{16}) [0-9a-f]{16} (\S{3})", line) for line in text.splitlines()]
    assert all(rows)
    return [(int(row[1], 16), int(row[2], 16), row[3]) for row in rows if row]


def _program() -> bytes:
    """`init.s` as an ELF program of one segment."""
    sections = {section.name: section for section in assemble(Path(__file__).with_name("init.s")).sections}
    code = bytes(sections[".text"].data)
    size = 64 + 56 + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, _LOAD + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD, _LOAD, size, size, 4096) + code
