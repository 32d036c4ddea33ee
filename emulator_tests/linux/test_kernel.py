"""What is a kernel for this machine, and what is not."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from emulator_tests.linux.small import ADDRESS, ROOM, bzimage
from mh_emulator.linux.kernel import KernelError, read_kernel

GOOD = bzimage(b"\xf4")


def changed(at: int, data: bytes) -> bytes:
    return GOOD[:at] + data + GOOD[at + len(data) :]


def test_one_of_our_own() -> None:
    found = read_kernel(GOOD)
    assert (found.address, found.room, found.end) == (ADDRESS, ROOM, ADDRESS + ROOM)
    assert (found.code[0x200], found.command_line_limit, found.initrd_end) == (0xF4, 255, 1 << 31)
    assert (found.release, found.setup) == ("9.9 own", GOOD[0x1F1:0x268])


def test_debians(linux_kernel: Path) -> None:
    """What `file` says of it, and where Linux has had its kernel since 2.6."""
    found = read_kernel(linux_kernel.read_bytes())
    assert found.address == 0x100_0000
    assert "debian" in found.release
    assert found.command_line_limit == 2047
    assert len(found.code) < found.room < 1 << 28


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no kernel: no setup header of x86"),
        (b"MZ" * 400, "no kernel: no setup header of x86"),
        (changed(0x202, b"HdrT"), "no kernel: no setup header of x86"),
        (GOOD[:0x267], "no kernel: no setup header of x86"),
        (b"\x7fELF" + bytes(2000), "an ELF file, not a bzImage: a vmlinuz is one"),
        (bytes(0x38) + b"ARMd" + bytes(2000), "a kernel for arm64, not for x86-64"),
        (bzimage(b"\xf4", version=0x20B), "boot protocol 2.11, it takes 2.12 or later"),
        (bzimage(b"\xf4", xload_flags=2), "no entry for 64-bit mode: xloadflags 0x2"),
        (changed(0x211, b"\0"), "no entry for 64-bit mode: xloadflags 0x1"),
        (GOOD[:-1], "the file ends after 0x20f bytes of the kernel, its header says 0x210"),
        (changed(0x1F1, b"\xff"), "the file ends after 0x0 bytes of the kernel, its header says 0x210"),
    ],
)
def test_no_kernel_for_this_machine(data: bytes, message: str) -> None:
    with pytest.raises(KernelError) as caught:
        read_kernel(data)
    assert str(caught.value) == message


def test_hostile_headers_are_read_or_refused() -> None:
    pick = random.Random(15)
    refused = 0
    for _ in range(2000):
        data = bytearray(GOOD)
        for _ in range(pick.randrange(1, 6)):
            struct.pack_into("<H", data, pick.randrange(0x1F1, 0x267), pick.choice((0, 1, 0x7F, 0xFFFF)))
        try:
            assert read_kernel(bytes(data)).release.isprintable()
        except KernelError:
            refused += 1
    assert 100 < refused < 1900
