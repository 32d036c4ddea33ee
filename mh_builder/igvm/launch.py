"""The launch digest of an IGVM file: what the secure processor measures of it, in the order of its directives.

Source: QEMU, backends/igvm.c and target/i386/sev.c (which directive becomes which command; a page without data is a
ZERO page), docs/system/igvm.rst; Linux, arch/x86/kvm/svm/sev.c (VMSAs are launched last, in the order of the vCPUs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from sevsnpmeasure.gctx import GCTX

from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.measure import Mode
from mh_builder.igvm.file import Igvm, page_bytes
from mh_builder.igvm.layout import (
    SHARED,
    UNMEASURED,
    VMSA_GPA,
    DataType,
    PageData,
    ParameterArea,
    ParameterInsert,
    Platform,
    SnpIdBlock,
    VpContext,
)

PLATFORMS = {Mode.SEV: Platform.SEV, Mode.SEV_ES: Platform.SEV_ES, Mode.SNP: Platform.SEV_SNP}
"""What a kind of guest is called in an IGVM file."""


def modes(igvm: Igvm) -> list[Mode]:
    """The kinds of SEV guests that the file is for."""
    return [mode for mode, platform in PLATFORMS.items() if platform in igvm.platforms]


def launch_digest(igvm: Igvm, mode: Mode, more_vmsas: tuple[bytes, ...] = ()) -> bytes:
    """The digest of the file as that kind of guest; `more_vmsas` of the helper are measured behind the file's own.

    Raises `FirmwareError` where the file is not for such a guest, or QEMU would not launch it.
    """
    if mode not in modes(igvm):
        names = ", ".join(platform.name for platform in igvm.platforms)
        raise FirmwareError(f"IGVM: not for {PLATFORMS[mode].name}, its platforms are {names}")
    if mode is Mode.SNP:
        return _snp_digest(igvm)
    digest = hashlib.sha256()
    for page in _pages(igvm, mode):
        if page.data_type != DataType.NORMAL:
            raise FirmwareError(f"IGVM: page at {page.gpa:#x} of type {DataType(page.data_type).name}: for SNP alone")
        if not page.flags & UNMEASURED:
            digest.update(igvm.contents(page) or bytes(page_bytes(page)))
    if mode is Mode.SEV_ES:
        for vmsa in (*vmsas(igvm, mode), *more_vmsas):
            digest.update(vmsa)
    return digest.digest()


def vmsas(igvm: Igvm, mode: Mode) -> list[bytes]:
    """The VMSAs of one kind of guest, by vCPU. Raises `FirmwareError` where QEMU would not launch them."""
    bit = igvm.platforms[PLATFORMS[mode]]
    contexts = sorted((body for body in igvm.bodies(VpContext) if body.mask == bit), key=lambda body: body.vp_index)
    for number, body in enumerate(contexts):
        if (body.gpa, body.vp_index) != (VMSA_GPA, number):
            raise FirmwareError(
                f"IGVM: registers of vCPU {body.vp_index} at {body.gpa:#x}: vCPU {number}'s belong at {VMSA_GPA:#x}"
            )
    return [igvm.contents(body) or b"" for body in contexts]


def _pages(igvm: Igvm, mode: Mode) -> Iterator[PageData]:
    """All pages that are private, in the order of the file."""
    bit = igvm.platforms[PLATFORMS[mode]]
    return (body for body in igvm.bodies(PageData) if body.mask & bit and not body.flags & SHARED)


def _snp_digest(igvm: Igvm) -> bytes:
    bit = igvm.platforms[Platform.SEV_SNP]
    areas = {body.area: body.size for body in igvm.bodies(ParameterArea)}
    context = GCTX()
    for header in igvm.headers:
        body = header.body
        if isinstance(body, ParameterInsert) and body.mask & bit:
            context.update_unmeasured_pages(body.gpa, areas[body.area])
        elif isinstance(body, PageData) and body.mask & bit and not body.flags & SHARED:
            _add_page(context, igvm, body)
    for vmsa in vmsas(igvm, Mode.SNP):
        context.update_vmsa_page(vmsa)
    return bytes(context.ld())


def _add_page(context: GCTX, igvm: Igvm, page: PageData) -> None:
    contents = igvm.contents(page)
    if page.data_type == DataType.SECRETS:
        context.update_secrets_page(page.gpa)
    elif page.data_type != DataType.NORMAL:
        context.update_cpuid_page(page.gpa)
    elif page.flags & UNMEASURED:
        context.update_unmeasured_pages(page.gpa, page_bytes(page))
    elif contents is None:
        context.update_zero_pages(page.gpa, page_bytes(page))
    else:
        context.update_normal_pages(page.gpa, contents)


@dataclass(frozen=True, slots=True)
class WrongIdBlock:
    """An SNP ID block with a digest that the file does not launch to: the firmware refuses the launch."""

    says: bytes
    launches: bytes

    def __str__(self) -> str:
        return f"SNP ID block: for the digest {self.says.hex()}, the file has {self.launches.hex()}: sign another one"

    def as_json(self) -> dict[str, str]:
        """Both digests in hexadecimal."""
        return {"says": self.says.hex(), "launches": self.launches.hex()}


def wrong_id_block(igvm: Igvm) -> WrongIdBlock | None:
    """The ID block for SNP, where it is wrong. Raises `FirmwareError` where there is one and no digest."""
    for block in igvm.bodies(SnpIdBlock):
        if block.mask & igvm.platforms.get(Platform.SEV_SNP, 0):
            found = launch_digest(igvm, Mode.SNP)
            return None if found == block.ld else WrongIdBlock(block.ld, found)
    return None
