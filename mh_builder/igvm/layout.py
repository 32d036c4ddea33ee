"""The structures of an IGVM file: what stands where, in little endian.

Source: the public crate `igvm_defs` 0.4 (microsoft/igvm, igvm_defs/src/lib.rs), whose names these are. The platforms
SEV and SEV-ES, and version 2 of the fixed header, are marked there as not yet stable.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

MAGIC = b"IGVM"
FIXED_HEADER = struct.Struct("<4s5I")
"""Magic, version, offset and size of the variable headers, size of the file, CRC-32."""
FIXED_HEADER_2 = struct.Struct("<4s7I")
"""And architecture, size of a page."""
CHECKSUM_OFFSET = 20
VARIABLE_HEADER = struct.Struct("<II")
"""Type, and size of what follows; the next header begins at a multiple of `ALIGNMENT`."""
ALIGNMENT = 8
ARCHITECTURE_X64 = 0
OPTIONAL = 1 << 31
"""In a type: a loader that does not know it goes on."""


class Platform(IntEnum):
    """What isolates the guest."""

    NATIVE = 0
    VSM_ISOLATION = 1
    SEV_SNP = 2
    TDX = 3
    SEV = 4
    SEV_ES = 5
    CCA = 6


class Kind(IntEnum):
    """Type of a variable header: 1 to 0x100 platform, 0x101 to 0x200 initialization, 0x301 to 0x400 directive."""

    SUPPORTED_PLATFORM = 0x1
    GUEST_POLICY = 0x101
    RELOCATABLE_REGION = 0x102
    PAGE_TABLE_RELOCATION_REGION = 0x103
    CORIM_DOCUMENT = 0x104
    CORIM_SIGNATURE = 0x105
    CCA_POLICY = 0x106
    PARAMETER_AREA = 0x301
    PAGE_DATA = 0x302
    PARAMETER_INSERT = 0x303
    VP_CONTEXT = 0x304
    REQUIRED_MEMORY = 0x305
    VP_COUNT_PARAMETER = 0x307
    SRAT = 0x308
    MADT = 0x309
    MMIO_RANGES = 0x30A
    SNP_ID_BLOCK = 0x30B
    MEMORY_MAP = 0x30C
    ERROR_RANGE = 0x30D
    COMMAND_LINE = 0x30E
    SLIT = 0x30F
    PPTT = 0x310
    VBS_MEASUREMENT = 0x311
    DEVICE_TREE = 0x312
    ENVIRONMENT_INFO_PARAMETER = 0x313


KNOWN = frozenset(kind.value for kind in Kind)

SECTION_STARTS = (0x301, 0x101, 0x1)
"""First type of directives, initialization, platforms; headers come in the opposite order."""


class DataType(IntEnum):
    """What a page is for."""

    NORMAL = 0
    SECRETS = 1
    CPUID_DATA = 2
    CPUID_XF = 3


LARGE_PAGE, UNMEASURED, SHARED = 1 << 0, 1 << 1, 1 << 2
"""Flags of a page: 2 MiB of it, not measured, not encrypted."""
PAGE_FLAGS = LARGE_PAGE | UNMEASURED | SHARED


class SupportedPlatform(NamedTuple):
    """A platform and the bit that stands for it in all masks."""

    mask: int
    highest_vtl: int
    platform: int
    version: int
    shared_gpa_boundary: int


class GuestPolicy(NamedTuple):
    """The policy with which the launch starts."""

    policy: int
    mask: int
    reserved: int = 0


class ParameterArea(NamedTuple):
    """Memory of the loader, to be filled with parameters and then inserted."""

    size: int
    area: int
    file_offset: int


class PageData(NamedTuple):
    """A page; without data in the file it is zero."""

    gpa: int
    mask: int
    file_offset: int
    flags: int = 0
    data_type: int = DataType.NORMAL
    reserved: int = 0


class ParameterInsert(NamedTuple):
    """Where a parameter area goes; it is not measured."""

    gpa: int
    mask: int
    area: int


class VpContext(NamedTuple):
    """The registers with which a vCPU starts: a VMSA under SEV-ES and SNP."""

    gpa: int
    mask: int
    file_offset: int
    vp_index: int
    reserved: int = 0


class RequiredMemory(NamedTuple):
    """Memory that has to be there."""

    gpa: int
    mask: int
    size: int
    flags: int = 0
    reserved: int = 0


class SnpIdBlock(NamedTuple):
    """What the firmware compares the launch digest with, and its signatures."""

    mask: int
    author_key_enabled: int
    reserved: bytes
    ld: bytes
    family_id: bytes
    image_id: bytes
    version: int
    guest_svn: int
    keys: bytes


class Parameter(NamedTuple):
    """What the loader writes into a parameter area, and where."""

    area: int
    byte_offset: int


class Opaque(NamedTuple):
    """The body of a header that is kept and not looked into."""

    data: bytes


Body = (
    SupportedPlatform | GuestPolicy | ParameterArea | PageData | ParameterInsert | VpContext | RequiredMemory
    | SnpIdBlock | Parameter | Opaque
)  # fmt: skip

STRUCTURES: Mapping[Kind, tuple[struct.Struct, type[Body]]] = MappingProxyType(
    {
        Kind.SUPPORTED_PLATFORM: (struct.Struct("<IBBHQ"), SupportedPlatform),
        Kind.GUEST_POLICY: (struct.Struct("<QII"), GuestPolicy),
        Kind.PARAMETER_AREA: (struct.Struct("<QII"), ParameterArea),
        Kind.PAGE_DATA: (struct.Struct("<QIIIHH"), PageData),
        Kind.PARAMETER_INSERT: (struct.Struct("<QII"), ParameterInsert),
        Kind.VP_CONTEXT: (struct.Struct("<QIIHH"), VpContext),
        Kind.REQUIRED_MEMORY: (struct.Struct("<QIIII"), RequiredMemory),
        Kind.SNP_ID_BLOCK: (struct.Struct("<IB3s48s16s16sII600s"), SnpIdBlock),
    }
    | dict.fromkeys(
        (
            Kind.VP_COUNT_PARAMETER, Kind.SRAT, Kind.MADT, Kind.MMIO_RANGES, Kind.MEMORY_MAP, Kind.COMMAND_LINE,
            Kind.SLIT, Kind.PPTT, Kind.DEVICE_TREE, Kind.ENVIRONMENT_INFO_PARAMETER,
        ),
        (struct.Struct("<II"), Parameter),
    )
    | {
        kind: (struct.Struct(f"<{size}s"), Opaque)
        for kind, size in {
            Kind.RELOCATABLE_REGION: 40, Kind.PAGE_TABLE_RELOCATION_REGION: 32, Kind.CORIM_DOCUMENT: 16,
            Kind.CORIM_SIGNATURE: 16, Kind.CCA_POLICY: 32, Kind.ERROR_RANGE: 16, Kind.VBS_MEASUREMENT: 864,
        }.items()
    }
)  # fmt: skip
"""Layout of each known body, and what it is read as."""

VMSA_GPA = 0xFFFF_FFFF_F000
"""Where KVM launches every VMSA; QEMU refuses a context that says another place (docs/system/igvm.rst)."""
