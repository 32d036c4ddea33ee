"""The launch digest of a flash image: what the secure processor measures, and the guest owner expects.

The layout of the firmware's vCPUs and the SNP digest are sev-snp-measure's; this adds the helper's own VMSAs, which the
owner's launch context measures as well (KVM_SEV_LAUNCH_UPDATE_VMSA on the mirror).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmsa import VMSA

from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import check_size
from mh_builder.firmware.metadata import metadata_findings, read_metadata
from mh_builder.firmware.table import Table, read_table
from mh_builder.paging import PAGE_BYTES

MAX_VCPUS = 4096


class Mode(Enum):
    """Which kind of guest is launched."""

    SEV = "sev"
    SEV_ES = "seves"
    SNP = "snp"


@dataclass(frozen=True, slots=True)
class Vcpus:
    """The firmware's vCPUs: how many, CPUID 0000_0001 EAX, SEV_FEATURES under SNP; and the helper's VMSA pages."""

    count: int
    signature: int
    snp_features: int = 1
    helper_vmsas: tuple[bytes, ...] = ()


def launch_digest(flash: bytes, mode: Mode, vcpus: Vcpus) -> bytes:
    """The digest as QEMU launches `flash` without a kernel. Raises `FirmwareError` where it cannot be launched so."""
    check_size(flash)
    if not flash or len(flash) % PAGE_BYTES:
        raise FirmwareError(f"{len(flash):#x} bytes are not a number of pages of {PAGE_BYTES:#x}")
    table = read_table(flash)
    if mode is Mode.SNP:
        return _snp_digest(flash, table, vcpus)
    digest = hashlib.sha256(flash)
    if mode is Mode.SEV_ES:
        for page in (*_firmware_vmsas(flash, table, vcpus), *vcpus.helper_vmsas):
            digest.update(page)
    return digest.digest()


def _firmware_vmsas(flash: bytes, table: Table, vcpus: Vcpus) -> Sequence[bytes]:
    pages = VMSA(SevMode.SEV_ES, _reset_address(flash, table), vcpus.signature, 0).pages(vcpus.count)
    return tuple(pages)


def _snp_digest(flash: bytes, table: Table, vcpus: Vcpus) -> bytes:
    areas = read_metadata(flash, table)
    if not areas:
        raise FirmwareError("no SEV metadata in the GUIDed table: it cannot be launched as an SNP guest")
    for finding in metadata_findings(areas, len(flash)):
        raise FirmwareError(finding)
    _reset_address(flash, table)
    with tempfile.NamedTemporaryFile() as file:
        file.write(flash)
        file.flush()
        return bytes(
            guest.snp_calc_launch_digest(vcpus.count, vcpus.signature, file.name, "", "", "", vcpus.snp_features, "")
        )


def _reset_address(flash: bytes, table: Table) -> int:
    entry = table.find(guids.SEV_ES_RESET)
    if entry is None or len(entry.data(flash)) < 4:
        raise FirmwareError("no SEV-ES reset vector in the GUIDed table: vCPUs of an SEV-ES guest cannot start")
    return int.from_bytes(entry.data(flash)[:4], "little")
