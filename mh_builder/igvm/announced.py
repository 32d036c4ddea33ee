"""A helper that an IGVM file brings beside the firmware: pages announced by data HOBs, no firmware volume is touched.

OVMF starts what a HOB of the type KERNEL announces, so that is the loader, which finds the image in another HOB
(`payload/loader/hob.s`), puts it into reserved memory as ever, and returns; the firmware then goes on to boot.
Source: edk2, OvmfPkg/QemuKernelLoaderFsDxe, OvmfPkg/Library/PlatformBootManagerLib/QemuKernel.c.
"""

from __future__ import annotations

import hashlib

from mh_abi import abi
from mh_builder.firmware import guids
from mh_builder.firmware.driver import Finds, build_loader
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.inject import firmware_entry
from mh_builder.firmware.table import read_table
from mh_builder.igvm.file import Igvm, page_bytes
from mh_builder.igvm.firmware import flash_of
from mh_builder.igvm.hob import DataHob, hob_area, read_hobs, write_hobs
from mh_builder.igvm.insert import with_pages
from mh_builder.igvm.layout import PageData
from mh_builder.paging import MIB, PAGE_BYTES, whole_pages

_FIRMWARE_END = 32 * MIB
"""OVMF's own memory, until it has found RAM, ends at 0x1780000 (edk2, OvmfPkg/Include/Fdf/MemFd.fdf.inc)."""
_SHA256_BYTES = 32
_SHIM, _KERNEL = 0x200, 0x201
"""Types that the firmware starts; it starts one of them (edk2, OvmfPkg/Include/IndustryStandard/IgvmData.h)."""


def check_room(igvm: Igvm) -> None:
    """Raise `FirmwareError` where the firmware knows no data HOBs, or has a helper or another program already."""
    flash = flash_of(igvm)
    hob_area(flash)
    if read_table(flash).find(guids.FIRMWARE_ENTRY) is not None:
        raise FirmwareError("GUIDed table: an image of the migration helper is in the firmware already")
    for hob in data_hobs(igvm):
        if hob.data_type in (_SHIM, _KERNEL, abi.MH_IGVM_DATA_IMAGE):
            raise FirmwareError(
                f"IGVM: a data HOB of type {hob.data_type:#x} for {hob.address:#x} is there already, "
                "and the firmware starts one program"
            )


def announce(igvm: Igvm, blob: bytes) -> Igvm:
    """The file with the flat binary `blob` and its loader behind the memory that the helper will have.

    Raises `FirmwareError` as `check_room` does, and where nothing is to be loaded in the guest.
    """
    check_room(igvm)
    gpa, size = hob_area(flash_of(igvm))
    entry = firmware_entry(blob)
    start = entry.base + entry.memory_bytes
    if start < _FIRMWARE_END:
        raise FirmwareError(f"IGVM: pages at {start:#x} are the firmware's own, which ends at {_FIRMWARE_END:#x}")
    loader, image = build_loader(Finds.HOB), blob + hashlib.sha256(blob).digest()
    second = start + len(_pages(loader, start)) * PAGE_BYTES
    hobs = [
        *data_hobs(igvm),
        DataHob(start, len(loader), _KERNEL),
        DataHob(second, len(image), abi.MH_IGVM_DATA_IMAGE),
    ]
    page = write_hobs(hobs, size)
    return with_pages(igvm, [*_pages(page, gpa), *_pages(loader, start), *_pages(image, second)], replaced=gpa)


def announced(igvm: Igvm) -> bytes | None:
    """The image of the helper that the file brings, None without one.

    Raises `FirmwareError` where it is spoiled, or where no program is there that would load it.
    """
    hobs = data_hobs(igvm)
    image = next((hob for hob in hobs if hob.data_type == abi.MH_IGVM_DATA_IMAGE), None)
    if image is None:
        return None
    blob = _checked(_memory(igvm, image.address, image.length))
    if not any(hob.data_type in (_SHIM, _KERNEL) for hob in hobs):
        raise FirmwareError(f"IGVM: a data HOB announces the helper at {image.address:#x}, but none a loader")
    return blob


def data_hobs(igvm: Igvm) -> list[DataHob]:
    """What the file announces to its firmware; nothing where there is no firmware that knows data HOBs."""
    try:
        area = hob_area(flash_of(igvm))
    except FirmwareError:
        return []
    return read_hobs(_memory(igvm, *area))


def _checked(data: bytes) -> bytes:
    blob, digest = data[:-_SHA256_BYTES], data[-_SHA256_BYTES:]
    found = hashlib.sha256(blob).digest()
    if found != digest:
        raise FirmwareError(f"IGVM: SHA-256 of the helper's image is {found.hex()}, behind it is {digest.hex()}")
    firmware_entry(blob)
    return blob


def _pages(data: bytes, gpa: int) -> list[tuple[int, bytes]]:
    padded = data.ljust(whole_pages(len(data)), b"\0")
    return [(gpa + at, padded[at : at + PAGE_BYTES]) for at in range(0, len(padded), PAGE_BYTES)]


def _memory(igvm: Igvm, gpa: int, size: int) -> bytes:
    """What the file puts there, zero where it puts nothing. Raises `FirmwareError`."""
    if size > len(igvm.data):
        raise FirmwareError(f"IGVM: data at {gpa:#x} of {size:#x} bytes, the file has {len(igvm.data):#x}")
    data = bytearray(size)
    for body in igvm.bodies(PageData):
        start, end = max(gpa, body.gpa), min(gpa + size, body.gpa + page_bytes(body))
        if start < end and body.file_offset:
            offset = body.file_offset + start - body.gpa
            data[start - gpa : end - gpa] = igvm.data[offset : offset + end - start]
    return bytes(data)
