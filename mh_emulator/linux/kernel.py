"""A Linux kernel for x86-64, as its bzImage says how it is to be loaded.

Source: Linux, Documentation/arch/x86/boot.rst (the setup header), Documentation/arch/arm64/booting.rst.
"""

from __future__ import annotations

from dataclasses import dataclass

from mh_abi.errors import MigrationHelperError

LARGEST_KERNEL = 256 << 20
"""Bytes of a file that is looked at."""

SETUP_HEADER = 0x1F1
"""Where the setup header begins, in the file and in struct boot_params."""
_SECTOR = 512
_SETUP_SECTORS, _JUMP, _MAGIC, _VERSION, _RELEASE, _LOAD_FLAGS = 0x1F1, 0x201, 0x202, 0x206, 0x20E, 0x211
_INITRD_MAX, _XLOAD_FLAGS, _COMMAND_LINE, _PREFERRED, _INIT_SIZE = 0x22C, 0x236, 0x238, 0x258, 0x260
_HEADER_END = 0x268
_RELEASE_BYTES = 256
_DEFAULT_SECTORS = 4
_OLDEST = 0x20C
"""The first that says whether there is an entry for 64-bit mode."""
_LOADED_HIGH, _KERNEL_64 = 1 << 0, 1 << 0
ENTRY_64 = 0x200
"""From the start of the loaded kernel."""
_ARM64_MAGIC, _ARM64_AT = b"ARM\x64", 0x38


class KernelError(MigrationHelperError, ValueError):
    """A file that is no kernel for this machine, or that does not fit; one line with what is wrong."""


@dataclass(frozen=True)
class Kernel:
    """What is loaded of one, and where; sizes in bytes."""

    head: bytes
    """The real-mode part, with the boot sector: what lies before `code` in the file."""
    setup: bytes
    """The setup header, which the boot parameters repeat."""
    code: bytes
    """All behind the real-mode part; it unpacks itself."""
    address: int
    """GPA at which it is to lie."""
    room: int
    """What it needs from there on until it knows the memory map."""
    command_line_limit: int
    """Without the zero behind it."""
    initrd_end: int
    """The GPA above which no initrd may reach."""
    release: str
    """Version and builder, as the file has them."""

    @property
    def end(self) -> int:
        """The first GPA behind that."""
        return self.address + max(self.room, len(self.code))


def read_kernel(data: bytes) -> Kernel:
    """Read a bzImage. Raises `KernelError`."""
    _check_kind(data)
    version = _number(data, _VERSION, 2)
    if version < _OLDEST:
        raise KernelError(f"boot protocol {_shown(version)}, it takes {_shown(_OLDEST)} or later")
    if not data[_LOAD_FLAGS] & _LOADED_HIGH or not _number(data, _XLOAD_FLAGS, 2) & _KERNEL_64:
        raise KernelError(f"no entry for 64-bit mode: xloadflags {_number(data, _XLOAD_FLAGS, 2):#x}")
    sectors = data[_SETUP_SECTORS] or _DEFAULT_SECTORS
    head, code = data[: (sectors + 1) * _SECTOR], data[(sectors + 1) * _SECTOR :]
    expected = _number(data, SETUP_HEADER + 3, 4) * 16
    if len(code) < expected:
        raise KernelError(f"the file ends after {len(code):#x} bytes of the kernel, its header says {expected:#x}")
    return Kernel(
        head=head,
        setup=data[SETUP_HEADER : _MAGIC + data[_JUMP]],
        code=code,
        address=_number(data, _PREFERRED, 8),
        room=_number(data, _INIT_SIZE, 4),
        command_line_limit=_number(data, _COMMAND_LINE, 4),
        initrd_end=_number(data, _INITRD_MAX, 4) + 1,
        release=_release(data),
    )


def _check_kind(data: bytes) -> None:
    if data[_ARM64_AT : _ARM64_AT + 4] == _ARM64_MAGIC:
        raise KernelError("a kernel for arm64, not for x86-64")
    if data[:4] == b"\x7fELF":
        raise KernelError("an ELF file, not a bzImage: a vmlinuz is one")
    if len(data) < _HEADER_END or data[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise KernelError("no kernel: no setup header of x86")


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _shown(version: int) -> str:
    return f"{version >> 8}.{version & 0xFF:02}"


def _release(data: bytes) -> str:
    at = _number(data, _RELEASE, 2) + _SECTOR
    text = data[at : at + _RELEASE_BYTES].split(b"\0")[0].decode("latin-1")
    return "".join(filter(str.isprintable, text))
