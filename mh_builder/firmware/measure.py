"""The launch digest of a flash image: what the secure processor measures, and the guest owner expects.

The layout of the firmware's vCPUs is sev-snp-measure's; the helper's own VMSAs come behind them, which the owner's
launch context measures as well (KVM_SEV_LAUNCH_UPDATE_VMSA on the mirror).
Source: QEMU, target/i386/sev.c; sev-snp-measure 0.0.13 for the other VMMs: ec2 launches CPUID pages last, gce does not
measure SEC memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA

from mh_builder.firmware import guids
from mh_builder.firmware.digests import Mode, digest_of
from mh_builder.firmware.direct import DirectBoot
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import check_size
from mh_builder.firmware.metadata import (
    CPUID,
    KERNEL_HASHES,
    METADATA_KINDS,
    METADATA_LIMIT,
    SEC_MEMORY,
    SECRETS,
    Area,
    metadata_findings,
    read_metadata,
)
from mh_builder.firmware.snp import PageType, SnpPage, pages_at, pages_of_type, vmsa_page
from mh_builder.firmware.table import Table, read_table
from mh_builder.paging import GIB, PAGE_BYTES

MAX_VCPUS = 4096
VCPU_TYPES: dict[str, int] = dict(CPU_SIGS)
"""CPU model of QEMU -> CPUID 0000_0001 EAX."""
VMMS = {vmm.name: vmm for vmm in VMMType}

_ADDRESS_BYTES = 4


@dataclass(frozen=True, slots=True)
class Vcpus:
    """The firmware's vCPUs: how many, CPUID 0000_0001 EAX, SEV_FEATURES under SNP; and the helper's VMSA pages.

    `vmm` is who makes the registers: one of `VMMS`.
    """

    count: int
    signature: int
    snp_features: int = 1
    helper_vmsas: tuple[bytes, ...] = ()
    vmm: VMMType = VMMType.QEMU


def launch_digest(flash: bytes, mode: Mode, vcpus: Vcpus, boot: DirectBoot | None = None) -> bytes:
    """The digest of a launch of `flash`. Raises `FirmwareError` where it cannot be launched so."""
    return digest_of(FlashLaunch(flash, vcpus, boot), mode)


class FlashLaunch:
    """A flash image as a VMM launches it: with its vCPUs, and with the hashes of a kernel that it is to `boot`."""

    def __init__(self, flash: bytes, vcpus: Vcpus, boot: DirectBoot | None = None) -> None:
        """Raise `FirmwareError` where `flash` is none."""
        check_size(flash)
        if not flash or len(flash) % PAGE_BYTES:
            raise FirmwareError(f"{len(flash):#x} bytes are not a number of pages of {PAGE_BYTES:#x}")
        self._flash = flash
        self._table = read_table(flash)
        self._vcpus = vcpus
        self._boot = boot

    def modes(self) -> Sequence[Mode]:
        """The kinds of guests that are asked for without a word."""
        return tuple(Mode)

    def sev_data(self, mode: Mode) -> Iterable[bytes]:
        """Flash, the hashes of a kernel, VMSAs. Raises `FirmwareError`."""
        yield self._flash
        if self._boot is not None:
            self._hashes_gpa()
            yield self._boot.hashes()
        if mode is Mode.SEV_ES:
            yield from self._vmsas(SevMode.SEV_ES, 0)
            yield from self._vcpus.helper_vmsas

    def warnings(self) -> Sequence[str]:
        """What the secure processor or firmware will not take although there is a digest, a line each."""
        areas = self._areas()
        return () if any(_unusable((area,)) for area in areas) else metadata_findings(areas, len(self._flash))

    def snp_pages(self) -> Iterable[SnpPage]:
        """What is launched of an SNP guest, in the VMM's order. Raises `FirmwareError` where it cannot be."""
        areas = self._areas()
        if not areas:
            raise FirmwareError("no SEV metadata in the GUIDed table: it cannot be launched as an SNP guest")
        problem = _unusable(areas)
        if problem:
            raise FirmwareError(problem)
        vmsas = self._vmsas(SevMode.SEV_SNP, self._vcpus.snp_features)
        if self._boot is not None and not any(area.kind == KERNEL_HASHES for area in areas):
            raise FirmwareError("SEV metadata: a kernel is given, but there is no area for its hashes")
        return self._launched(areas, vmsas)

    def _launched(self, areas: Sequence[Area], vmsas: Sequence[bytes]) -> Iterator[SnpPage]:
        yield from pages_at(4 * GIB - len(self._flash), self._flash)
        late = [area for area in areas if self._vcpus.vmm is VMMType.ec2 and area.kind == CPUID]
        for area in (*(area for area in areas if area not in late), *late):
            yield from self._area(area)
        yield from map(vmsa_page, vmsas)

    def _area(self, area: Area) -> Iterable[SnpPage]:
        kind = {SECRETS: PageType.SECRETS, CPUID: PageType.CPUID}.get(area.kind, PageType.ZERO)
        if area.kind == SEC_MEMORY and self._vcpus.vmm is VMMType.gce:
            kind = PageType.UNMEASURED
        if area.kind == KERNEL_HASHES and self._boot is not None:
            offset, table = self._hashes_gpa() % PAGE_BYTES, self._boot.hashes()
            if offset + len(table) > area.size:
                raise FirmwareError(
                    f"SEV metadata: area at {area.gpa:#x} of {area.size:#x} bytes, the kernel's hashes end at "
                    f"{offset + len(table):#x} of it"
                )
            return pages_at(area.gpa, (bytes(offset) + table).ljust(area.size, b"\0"))
        return pages_of_type(kind, area.gpa, area.size)

    def _areas(self) -> tuple[Area, ...]:
        return read_metadata(self._flash, self._table)

    def _vmsas(self, mode: SevMode, features: int) -> tuple[bytes, ...]:
        reset = _reset_address(self._flash, self._table)
        vmsa = VMSA(mode, reset, self._vcpus.signature, features, self._vcpus.vmm)
        return tuple(vmsa.pages(self._vcpus.count))

    def _hashes_gpa(self) -> int:
        """Where the firmware looks for the kernel's hashes."""
        entry = self._table.find(guids.KERNEL_HASHES)
        data = b"" if entry is None else entry.data(self._flash)
        gpa = int.from_bytes(data[:_ADDRESS_BYTES], "little")
        if len(data) < _ADDRESS_BYTES or not gpa:
            raise FirmwareError("no place for kernel hashes in the GUIDed table: it does not measure a kernel")
        return gpa


def _unusable(areas: Sequence[Area]) -> str:
    """Why areas cannot be launched at all, in a line; empty where they can."""
    for area in areas:
        where = f"SEV metadata: area at {area.gpa:#x}"
        if area.kind not in METADATA_KINDS:
            return f"{where} is of the unknown kind {area.kind:#x}: it cannot be launched as an SNP guest"
        if (area.gpa | area.size) % PAGE_BYTES:
            return f"{where} of {area.size:#x} bytes is not made of pages: it cannot be launched as an SNP guest"
    total = sum(area.size for area in areas)
    if total > METADATA_LIMIT:
        return f"SEV metadata: areas of {total:#x} bytes, the limit is {METADATA_LIMIT:#x}"
    return ""


def _reset_address(flash: bytes, table: Table) -> int:
    entry = table.find(guids.SEV_ES_RESET)
    if entry is None or len(entry.data(flash)) < _ADDRESS_BYTES:
        raise FirmwareError("no SEV-ES reset vector in the GUIDed table: vCPUs with encrypted registers cannot start")
    return int.from_bytes(entry.data(flash)[:_ADDRESS_BYTES], "little")
