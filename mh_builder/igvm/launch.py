"""The launch digest of an IGVM file: what the secure processor measures of it, in the order of its directives.

Source: QEMU, backends/igvm.c and target/i386/sev.c (which directive becomes which command; a page without data is a
ZERO page), docs/system/igvm.rst; Linux, arch/x86/kvm/svm/sev.c (VMSAs are launched last, in the order of the vCPUs).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from mh_builder.firmware.digests import Mode, digest_of
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.snp import PageType, SnpPage, pages_at, pages_of_type, vmsa_page
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
    """The digest of the file as that kind of guest. Raises `FirmwareError` where it cannot be launched so."""
    return digest_of(IgvmLaunch(igvm, more_vmsas), mode)


@dataclass(frozen=True, slots=True)
class IgvmLaunch:
    """An IGVM file as it is launched; `more_vmsas` of the helper come behind the file's own, with SEV-ES."""

    igvm: Igvm
    more_vmsas: tuple[bytes, ...] = ()

    def modes(self) -> Sequence[Mode]:
        """The kinds of SEV guests that the file is for."""
        return modes(self.igvm)

    def warnings(self) -> Sequence[str]:
        """An ID block that has another digest, in a line."""
        wrong = wrong_id_block(self.igvm)
        return () if wrong is None else (str(wrong),)

    def sev_data(self, mode: Mode) -> Iterable[bytes]:
        """Measured pages, then VMSAs. Raises `FirmwareError`."""
        self._check(mode)
        for page in _pages(self.igvm, mode):
            if page.data_type != DataType.NORMAL:
                name = DataType(page.data_type).name
                raise FirmwareError(f"IGVM: page at {page.gpa:#x} of type {name}: for SNP alone")
            if not page.flags & UNMEASURED:
                yield self.igvm.contents(page) or bytes(page_bytes(page))
        if mode is Mode.SEV_ES:
            yield from vmsas(self.igvm, mode)
            yield from self.more_vmsas

    def snp_pages(self) -> Iterable[SnpPage]:
        """What is launched of an SNP guest, in order. Raises `FirmwareError`."""
        self._check(Mode.SNP)
        return chain(_snp_pages(self.igvm), map(vmsa_page, vmsas(self.igvm, Mode.SNP)))

    def _check(self, mode: Mode) -> None:
        if mode not in self.modes():
            names = ", ".join(platform.name for platform in self.igvm.platforms)
            raise FirmwareError(f"IGVM: not for {PLATFORMS[mode].name}, its platforms are {names}")


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


def _snp_pages(igvm: Igvm) -> Iterator[SnpPage]:
    bit = igvm.platforms[Platform.SEV_SNP]
    areas = {body.area: body.size for body in igvm.bodies(ParameterArea)}
    for header in igvm.headers:
        body = header.body
        if isinstance(body, ParameterInsert) and body.mask & bit:
            yield from pages_of_type(PageType.UNMEASURED, body.gpa, areas[body.area])
        elif isinstance(body, PageData) and body.mask & bit and not body.flags & SHARED:
            yield from _of_body(igvm, body)


def _of_body(igvm: Igvm, page: PageData) -> Iterable[SnpPage]:
    contents = igvm.contents(page)
    if page.data_type == DataType.SECRETS:
        return [SnpPage(PageType.SECRETS, page.gpa)]
    if page.data_type != DataType.NORMAL:
        return [SnpPage(PageType.CPUID, page.gpa)]
    if page.flags & UNMEASURED:
        return pages_of_type(PageType.UNMEASURED, page.gpa, page_bytes(page))
    if contents is None:
        return pages_of_type(PageType.ZERO, page.gpa, page_bytes(page))
    return pages_at(page.gpa, contents)


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
