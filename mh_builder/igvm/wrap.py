"""Firmware as an IGVM file, which is launched as QEMU launches the flash image: to the same digests.

The pages come in the order of that launch: the flash image, then, for SNP, the areas of the SEV metadata, then the
VMSAs. Parameters of the loader are left out, for they would be in the digest; firmware then asks fw_cfg, as it does
from flash. Source: QEMU, target/i386/sev.c; the public crate virtfw-igvm-tools, which orders pages by GPA.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmsa import VMSA

from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import check_size
from mh_builder.firmware.measure import Vcpus
from mh_builder.firmware.metadata import CPUID, SECRETS, Area, inspect_metadata
from mh_builder.firmware.table import Table, read_table
from mh_builder.igvm.firmware import FLASH_END
from mh_builder.igvm.layout import (
    VMSA_GPA,
    DataType,
    GuestPolicy,
    Kind,
    PageData,
    Platform,
    SupportedPlatform,
    VpContext,
)
from mh_builder.igvm.write import Part, write_igvm
from mh_builder.paging import PAGE_BYTES

POLICIES = {Platform.SEV: 0x0B, Platform.SEV_ES: 0x0F, Platform.SEV_SNP: 0x3_0000}
"""Without another one: NODBG, NOKS, NOSEND (SEV API, chapter 3), and ES; for SNP what QEMU takes, SMT and a bit that
has to be set (SNP ABI, chapter 4.3). QEMU takes a policy from the file for SNP alone.
"""
MASKS = {platform: 1 << number for number, platform in enumerate(POLICIES)}
_METADATA_TYPES = {SECRETS: DataType.SECRETS, CPUID: DataType.CPUID_DATA}
"""Kind of an area of the SEV metadata -> type of its page; all others are zero pages."""


def wrap(flash: bytes, vcpus: Vcpus) -> bytes:
    """A file with `flash` for every kind of SEV guest that it can be: not for SNP with metadata that have findings.

    Raises `FirmwareError` where it can be none.
    """
    check_size(flash)
    if not flash or len(flash) % PAGE_BYTES:
        raise FirmwareError(f"{len(flash):#x} bytes are not a number of pages of {PAGE_BYTES:#x}")
    table = read_table(flash)
    areas = _snp_areas(flash, table)
    reset = _reset_address(flash, table)
    platforms = [Platform.SEV]
    if reset is not None:
        platforms += [Platform.SEV_ES, *([Platform.SEV_SNP] if areas else [])]
    parts = [*heading(platforms), *pages_of(flash, FLASH_END - len(flash), sum(MASKS[one] for one in platforms))]
    if Platform.SEV_SNP in platforms:
        parts += (part for area in areas for part in _area(area))
    if reset is not None:
        parts += _contexts(Platform.SEV_ES, VMSA(SevMode.SEV_ES, reset, vcpus.signature, 0, vcpus.vmm), vcpus)
    if reset is not None and Platform.SEV_SNP in platforms:
        vmsa = VMSA(SevMode.SEV_SNP, reset, vcpus.signature, vcpus.snp_features, vcpus.vmm)
        parts += _contexts(Platform.SEV_SNP, vmsa, vcpus)
    return write_igvm(parts)


def heading(platforms: Iterable[Platform], policy: int | None = None) -> Iterator[Part]:
    """The headers with which a file for these platforms begins; `policy` in place of each one's own."""
    for platform in platforms:
        yield Part(Kind.SUPPORTED_PLATFORM, SupportedPlatform(MASKS[platform], 0, platform, 1, 0))
    for platform in platforms:
        chosen = POLICIES[platform] if policy is None else policy
        yield Part(Kind.GUEST_POLICY, GuestPolicy(chosen, MASKS[platform]))


def pages_of(data: bytes, gpa: int, mask: int) -> Iterator[Part]:
    """`data` as measured pages from `gpa` on."""
    for offset in range(0, len(data), PAGE_BYTES):
        yield Part(Kind.PAGE_DATA, PageData(gpa + offset, mask, 0), data[offset : offset + PAGE_BYTES])


def context(platform: Platform, number: int, page: bytes) -> Part:
    """The registers of one vCPU."""
    return Part(Kind.VP_CONTEXT, VpContext(VMSA_GPA, MASKS[platform], 0, number), page)


def _snp_areas(flash: bytes, table: Table) -> tuple[Area, ...]:
    """The areas of the SEV metadata, none where they cannot be trusted to be memory of an SNP guest."""
    metadata = inspect_metadata(flash, table)
    return () if metadata.findings else metadata.areas


def _area(area: Area) -> Iterator[Part]:
    for gpa in range(area.gpa, area.gpa + area.size, PAGE_BYTES):
        data_type = _METADATA_TYPES.get(area.kind, DataType.NORMAL)
        yield Part(Kind.PAGE_DATA, PageData(gpa, MASKS[Platform.SEV_SNP], 0, 0, data_type))


def _contexts(platform: Platform, vmsa: VMSA, vcpus: Vcpus) -> Iterator[Part]:
    return (context(platform, number, page) for number, page in enumerate(vmsa.pages(vcpus.count)))


def _reset_address(flash: bytes, table: Table) -> int | None:
    """Where vCPUs of an SEV-ES guest start, None where the image does not say it."""
    entry = table.find(guids.SEV_ES_RESET)
    return None if entry is None or len(entry.data(flash)) < 4 else int.from_bytes(entry.data(flash)[:4], "little")
