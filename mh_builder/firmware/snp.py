"""What the secure processor measures of an SNP guest: the launch digest LD, and IMD of its incoming-migration image.

Each page that is launched makes of a digest the next one: it is the SHA-384 of PAGE_INFO, in which the digest so far
stands. A page of the incoming-migration image (IMI) makes the next LD, and in the same way the next IMD.
Source: AMD SEV-SNP firmware ABI (56860), SNP_LAUNCH_UPDATE and its table PAGE_INFO; AMD's published firmware 1.55.25,
where VMPL1 comes first of the three bytes of permissions, and TSC_SCALE and TSC_OFFSET of a VMSA are hashed as zero.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from mh_builder.firmware.errors import FirmwareError
from mh_builder.paging import PAGE_BYTES

VMSA_GPA = 0xFFFF_FFFF_F000
"""That of every VMSA, in PAGE_INFO."""
DIGEST_BYTES = hashlib.sha384().digest_size

_PAGE_INFO = struct.Struct("<48s48sHBBBBBBQ")
_TSC_SCALE, _TSC_END = 0x2F0, 0x300
"""TSC_SCALE and TSC_OFFSET, of 8 bytes each, in a VMSA."""


class PageType(IntEnum):
    """PAGE_TYPE of SNP_LAUNCH_UPDATE."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


_WITH_CONTENTS = (PageType.NORMAL, PageType.VMSA)


class SnpPage(NamedTuple):
    """A page that is launched: 4 KiB of `contents` where its type measures them, else none."""

    kind: PageType
    gpa: int
    contents: bytes = b""
    imi: bool = False
    """Whether it is part of the incoming-migration image."""
    vmpl: tuple[int, int, int] = (0, 0, 0)
    """Permissions of VMPL1, VMPL2 and VMPL3."""

    def contents_digest(self) -> bytes:
        """CONTENTS of its PAGE_INFO."""
        if self.kind not in _WITH_CONTENTS:
            return bytes(DIGEST_BYTES)
        data = self.contents
        if len(data) != PAGE_BYTES:
            raise ValueError(f"page at {self.gpa:#x}: {len(data):#x} bytes, a page has {PAGE_BYTES:#x}")
        if self.kind is PageType.VMSA:
            data = data[:_TSC_SCALE] + bytes(_TSC_END - _TSC_SCALE) + data[_TSC_END:]
        return hashlib.sha384(data).digest()


class SnpDigest:
    """Both digests of a launch in progress."""

    def __init__(self) -> None:
        self.ld = bytes(DIGEST_BYTES)
        self.imd = bytes(DIGEST_BYTES)
        """All zero while no page of the IMI was launched."""

    def add(self, page: SnpPage) -> None:
        """Launch a page."""
        contents = page.contents_digest()
        self.ld = _next(self.ld, contents, page)
        if page.imi:
            self.imd = _next(self.imd, contents, page)


def snp_digest(pages: Iterable[SnpPage]) -> SnpDigest:
    """Both digests of a launch of `pages`, in that order."""
    digest = SnpDigest()
    for page in pages:
        digest.add(page)
    return digest


def pages_at(gpa: int, data: bytes) -> Iterable[SnpPage]:
    """NORMAL pages of `data`, which is made of pages."""
    for offset in range(0, len(data), PAGE_BYTES):
        yield SnpPage(PageType.NORMAL, gpa + offset, data[offset : offset + PAGE_BYTES])


def pages_of(pieces: Iterable[tuple[int, bytes]]) -> list[SnpPage]:
    """NORMAL pages of several pieces, (GPA, bytes) each, which are made of pages."""
    return [page for gpa, data in pieces for page in pages_at(gpa, data)]


def pages_of_type(kind: PageType, gpa: int, size: int) -> Iterable[SnpPage]:
    """Pages without measured contents that cover `size` bytes."""
    return (SnpPage(kind, gpa + offset) for offset in range(0, size, PAGE_BYTES))


def vmsa_page(vmsa: bytes) -> SnpPage:
    """The registers of a vCPU."""
    return SnpPage(PageType.VMSA, VMSA_GPA, vmsa)


def _next(digest: bytes, contents: bytes, page: SnpPage) -> bytes:
    info = _PAGE_INFO.pack(digest, contents, _PAGE_INFO.size, page.kind, page.imi, 0, *page.vmpl, page.gpa)
    return hashlib.sha384(info).digest()


@dataclass(frozen=True, slots=True)
class Imi:
    """Which pages of a launch are its incoming-migration image: those in ranges of GPAs, and maybe all VMSAs."""

    ranges: tuple[range, ...]
    vmsas: bool

    def marked(self, pages: Iterable[SnpPage]) -> list[SnpPage]:
        """`pages`, with those of the image marked. Raises `FirmwareError` for a part of it that is not launched."""
        marked = [page._replace(imi=True) if self._has(page) else page for page in pages]
        launched = {page.gpa for page in marked if page.imi}
        for part in self.ranges:
            missing = next((gpa for gpa in range(part.start, part.stop, PAGE_BYTES) if gpa not in launched), None)
            if missing is not None:
                raise FirmwareError(
                    f"incoming image {part.start:#x} to {part.stop - 1:#x}: no page at {missing:#x} is launched"
                )
        if self.vmsas and VMSA_GPA not in launched:
            raise FirmwareError("incoming image: its VMSAs, but none is launched")
        return marked

    def _has(self, page: SnpPage) -> bool:
        if page.kind is PageType.VMSA:
            return self.vmsas
        return any(page.gpa in part for part in self.ranges)


@dataclass(frozen=True, slots=True)
class WholeLaunch:
    """Every page of a launch is its incoming-migration image."""

    def marked(self, pages: Iterable[SnpPage]) -> list[SnpPage]:
        """`pages`, all marked."""
        return [page._replace(imi=True) for page in pages]
