"""Which machine an executable of firmware is for.

Source: Microsoft PE format (machine types); UEFI PI 1.8, volume 1, section 15.1 (TE image), volume 3, section 2.1.4
(types of files).
"""

from __future__ import annotations

from mh_builder.firmware.section import PE32, TE, read_sections
from mh_builder.firmware.volume import File

IA32, X64 = 0x14C, 0x8664
MACHINES = {IA32: "IA32", X64: "X64", 0xAA64: "AArch64", 0x1C2: "Arm", 0x5064: "RISC-V", 0x6264: "LoongArch"}

_PE_OFFSET = 0x3C


def machine_of(data: bytes, file: File) -> int | None:
    """The machine of the first executable section of a firmware file. Raises `FirmwareError` for bad sections."""
    for section in read_sections(data, file.body, file.end):
        body = data[section.body : section.end]
        if section.kind == TE and body[:2] == b"VZ":
            return int.from_bytes(body[2:4], "little")
        if section.kind == PE32 and body[:2] == b"MZ":
            start = int.from_bytes(body[_PE_OFFSET : _PE_OFFSET + 4], "little")
            if body[start : start + 4] == b"PE\0\0":
                return int.from_bytes(body[start + 4 : start + 6], "little")
    return None


def machine_name(machine: int | None) -> str:
    """What messages call it."""
    return "no known executable" if machine is None else MACHINES.get(machine, f"machine {machine:#x}")
