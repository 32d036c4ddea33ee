"""The whole driver, built with edk2's headers for the emulated UEFI: emulated/mdepkg.c is its libraries."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ovmf_patches import DRIVER
from payload import abi

LIBRARIES = Path(__file__).parent / "emulated" / "mdepkg.c"

_FLAGS = (
    "-Os", "-ffreestanding", "-fpie", "-fvisibility=hidden", "-fshort-wchar", "-fno-builtin", "-fno-strict-aliasing",
    "-fno-common", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns", "-fno-asynchronous-unwind-tables",
    "-mno-red-zone", "-mno-mmx", "-mno-sse", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror",
    "-DEFIAPI=__attribute__((ms_abi))", "-include", "PiDxe.h",
    "-nostdlib", "-shared", "-Wl,-e,_ModuleEntryPoint,--build-id=none,-z,defs",
)  # fmt: skip
_PE = ("-O", "pei-x86-64", "--subsystem=efi-bsd", "--section-alignment=4096", "--file-alignment=512")
_SECTIONS = (".text", ".rodata", ".data", ".bss")


def build_driver(compiler: str, objcopy: str, include: Path, folder: Path) -> bytes:
    """The PE32+ file; `include` is MdePkg/Include of a release. Raises `subprocess.CalledProcessError`."""
    linked, driver = folder / "driver.so", folder / "driver.efi"
    includes = [f"-I{path}" for path in (include, include / "X64", abi.HEADER.parent)]
    sources = [*sorted(DRIVER.glob("*.c")), LIBRARIES]
    subprocess.run([compiler, *_FLAGS, *includes, "-o", linked, *sources], check=True)
    sections = [word for name in _SECTIONS for word in ("-j", name)]
    subprocess.run([objcopy, *_PE, *sections, linked, driver], check=True)
    return driver.read_bytes()
