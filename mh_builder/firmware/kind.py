"""What a file is that is given as a flash image of OVMF and is none.

Source of the signatures: RFC 1952 (gzip), the xz, zstd and bzip2 formats, QEMU, docs/interop/qcow2.rst, the System V
ABI (ELF), UEFI 2.10, section 23.2 (capsules), the IGVM specification, edk2, OvmfPkg/CloudHv.
"""

from __future__ import annotations

from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.executable import IA32, MACHINES, X64, machine_of
from mh_builder.firmware.table import ENTRY_HEADER
from mh_builder.firmware.volume import TYPE_PEI_CORE, TYPE_SEC_CORE, Volume, find_volumes, read_files
from mh_builder.paging import PAGE_BYTES

_ELF = b"\x7fELF"
_SIGNATURES = {
    b"\x1f\x8b": "compressed by gzip",
    b"\xfd7zXZ\0": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"PK\x03\x04": "a zip archive",
    b"!<arch>\n": "an archive of ar, as Debian's packages are",
    b"QFI\xfb": "a disk image in qcow2",
    b"IGVM": "an IGVM file",
    b"MZ": "a PE file, an EFI program or a kernel",
    b"\x55\xaa": "an option ROM of a PC",
    **{guid.bytes_le: "an EFI capsule" for guid in guids.CAPSULES},
}
_FOOTER_BYTES = 48
"""From the footer's GUID to the image's end."""
_RESET_BYTES = 16
_PC_RESET = bytes.fromhex("ea5be000f0")
"""A jump to f000:e05b, where a PC's BIOS begins."""


def check_kind(data: bytes) -> None:
    """Raise `FirmwareError` where `data` is known to be something else than one flash image of OVMF."""
    found = kind(data)
    if found is not None:
        raise FirmwareError(f"not an OVMF image: {found}")


def kind(data: bytes) -> str | None:
    """What `data` is; None where it ends with one GUIDed table as OVMF does, and where it is nothing known."""
    if not data:
        return "empty"
    if data.count(data[:1]) == len(data):
        return f"{len(data):#x} bytes, all {data[0]:#04x}"
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    ends = _table_ends(data)
    if ends and ends[-1] == len(data):
        return _several(data, ends)
    if ends:
        return _followed(data, ends[-1])
    return _without_table(data)


def _table_ends(data: bytes) -> list[int]:
    """Where images end that have a GUIDed table: the last two."""
    ends: list[int] = []
    footer = guids.TABLE_FOOTER.bytes_le
    at = data.rfind(footer)
    while at >= 0 and len(ends) < 2:
        end = at + _FOOTER_BYTES
        length = int.from_bytes(data[at - 2 : at], "little")
        if end % PAGE_BYTES == 0 and end <= len(data) and ENTRY_HEADER.size <= length <= end:
            ends.insert(0, end)
        at = data.rfind(footer, 0, at + len(footer) - 1)
    return ends


def _several(data: bytes, ends: list[int]) -> str | None:
    if len(ends) < 2:
        return None
    same = "the same twice" if data[: ends[0]] * 2 == data else "not the same"
    return f"two images, one ends at {ends[0]:#x} and one at {ends[1]:#x}, {same}"


def _followed(data: bytes, end: int) -> str:
    size = len(data) - end
    where = f"its GUIDed table ends the image at {end:#x}, but {size:#x} bytes follow"
    if data.count(data[end : end + 1], end) == size:
        return f"{where}, all {data[end]:#04x}: padded"
    if _is_store(data, end):
        return f"{where}, a variable store: CODE before VARS, the right order is VARS before CODE"
    return where


def _is_store(data: bytes, offset: int) -> bool:
    """Whether a volume of variables begins there, be it damaged or cut."""
    return data[offset + 16 : offset + 32] == guids.VARIABLES.bytes_le and data[offset + 40 : offset + 44] == b"_FVH"


def _without_table(data: bytes) -> str | None:
    try:
        volumes = list(find_volumes(data))
    except FirmwareError as error:
        return f"no GUIDed table, {error}"
    if data.startswith(_ELF):
        if any(volume.first_file is not None for volume in volumes):
            return "OVMF of cloud-hypervisor, an ELF file for PVH whose reset vector has no GUIDed table"
        return "an ELF file"
    if volumes and all(_is_store(data, volume.offset) for volume in volumes):
        return f"a variable store (VARS) of {volumes[0].size:#x} bytes without firmware (CODE)"
    machine = next(filter(None, (_machine(data, volume) for volume in volumes)), None)
    if machine not in (None, IA32, X64):
        return f"UEFI firmware for {MACHINES.get(machine or 0, f'machine {machine:#x}')}"
    if data[-_RESET_BYTES:].startswith(_PC_RESET):
        return "SeaBIOS, firmware without UEFI" if b"SeaBIOS" in data else "a PC's BIOS, firmware without UEFI"
    if volumes and volumes[-1].end == len(data) and machine is None:
        return f"its tail is missing: the last volume ends at {len(data):#x} and has no reset vector"
    return None


def _machine(data: bytes, volume: Volume) -> int | None:
    """The machine for which the code of SEC or PEI in a volume is."""
    if volume.first_file is None:
        return None
    try:
        files = read_files(data, volume).files
        cores = [file for file in files if file.kind in (TYPE_SEC_CORE, TYPE_PEI_CORE)]
        return next(filter(None, (machine_of(data, file) for file in cores)), None)
    except FirmwareError:
        return None
