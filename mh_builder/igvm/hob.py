"""Data HOBs: how an IGVM file tells OVMF of pages that it brings, without a change of the firmware.

Source: edk2-stable202511 and later: OvmfPkg/ResetVector/X64/IgvmMetadata.nasm.inc (where the page of the HOBs is),
OvmfPkg/Library/PlatformInitLib/Igvm.c (who reads it), OvmfPkg/Include/IndustryStandard/IgvmData.h; UEFI PI 1.8
volume 3, chapter 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from mh_abi import abi
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.metadata import IGVM_HOBS, read_igvm_areas
from mh_builder.firmware.table import read_table
from mh_builder.paging import PAGE_BYTES

_GUID = UUID(abi.MH_IGVM_DATA_GUID)
_HOB = struct.Struct("<HHI16sQQII")
_HEADER = struct.Struct("<HHI")
_GUID_EXTENSION, _END = 4, 0xFFFF


class DataHob(NamedTuple):
    """`length` bytes at GPA `address`, of a type that says for whom."""

    address: int
    length: int
    data_type: int
    flags: int = 0


def hob_area(flash: bytes) -> tuple[int, int]:
    """(GPA, bytes) of the page from which the firmware reads data HOBs. Raises `FirmwareError` without one."""
    areas = read_igvm_areas(flash, read_table(flash))
    if not areas:
        raise FirmwareError("no IGVM metadata in the GUIDed table: the firmware reads no data HOBs")
    for area in areas:
        if area.kind == IGVM_HOBS and area.size and not (area.gpa | area.size) % PAGE_BYTES:
            return area.gpa, area.size
    raise FirmwareError(f"IGVM metadata: none of {len(areas):#x} areas is for data HOBs: the firmware reads none")


def read_hobs(page: bytes) -> list[DataHob]:
    """The HOBs that OVMF finds in its page: up to the first that is none of these."""
    found, at = [], 0
    while at + _HOB.size <= len(page):
        kind, length, _, guid, *data = _HOB.unpack_from(page, at)
        if kind != _GUID_EXTENSION or UUID(bytes_le=guid) != _GUID or length < _HOB.size or at + length > len(page):
            break
        found.append(DataHob(*data))
        at += length
    return found


def write_hobs(hobs: Iterable[DataHob], size: int) -> bytes:
    """The page of these HOBs, with the mark of their end. Raises `FirmwareError` where they do not fit."""
    records = b"".join(_HOB.pack(_GUID_EXTENSION, _HOB.size, 0, _GUID.bytes_le, *hob) for hob in hobs)
    page = records + _HEADER.pack(_END, _HEADER.size, 0)
    if len(page) > size:
        raise FirmwareError(f"data HOBs of {len(page):#x} bytes, the firmware reads {size:#x}")
    return page.ljust(size, b"\0")
