"""The whole driver, built with edk2's headers in seconds: emulated/mdepkg.c is its libraries.

It starts in the emulated UEFI, and in a stock image.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from mh_abi import abi
from ovmf_patches import DRIVER

LIBRARIES = Path(__file__).parent / "emulated" / "mdepkg.c"

_FLAGS = (
    "-Os", "-ffreestanding", "-fpie", "-fvisibility=hidden", "-fshort-wchar", "-fno-builtin", "-fno-strict-aliasing",
    "-fno-common", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns", "-fno-asynchronous-unwind-tables",
    "-mno-red-zone", "-mno-mmx", "-mno-sse", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror",
    "-DEFIAPI=__attribute__((ms_abi))", "-include", "PiDxe.h",
    "-nostdlib", "-shared", "-Wl,-e,_ModuleEntryPoint,--build-id=none,-z,defs",
)  # fmt: skip
_PE = ("-O", "pei-x86-64", "--subsystem=efi-bsd", "--section-alignment=4096", "--file-alignment=512")
_PE_OFFSET, _CHARACTERISTICS, _RELOCS_STRIPPED = 0x3C, 22, 1 << 0
"""Microsoft PE format: where the header's place is written, and in the header IMAGE_FILE_RELOCS_STRIPPED."""

_SECTIONS = (".text", ".rodata", ".data", ".bss")


def build_driver(compiler: str, objcopy: str, include: Path, folder: Path) -> bytes:
    """The PE32+ file; `include` is MdePkg/Include of a release. Raises `subprocess.CalledProcessError`."""
    linked, driver = folder / "driver.so", folder / "driver.efi"
    includes = [f"-I{path}" for path in (include, include / "X64", abi.HEADER.parent)]
    sources = [*sorted(DRIVER.glob("*.c")), LIBRARIES]
    subprocess.run([compiler, *_FLAGS, *includes, "-o", linked, *sources], check=True)
    sections = [word for name in _SECTIONS for word in ("-j", name)]
    subprocess.run([objcopy, *_PE, *sections, linked, driver], check=True)
    return _movable(driver.read_bytes())


def _movable(data: bytes) -> bytes:
    """The file without what objcopy says of it: that it runs at one address only. It has no address in it."""
    characteristics = struct.unpack_from("<I", data, _PE_OFFSET)[0] + _CHARACTERISTICS
    (flags,) = struct.unpack_from("<H", data, characteristics)
    return data[:characteristics] + struct.pack("<H", flags & ~_RELOCS_STRIPPED) + data[characteristics + 2 :]
