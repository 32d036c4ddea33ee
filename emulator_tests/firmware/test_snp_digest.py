"""LD and IMD of an SNP launch: by the rule of the ABI, written down once more, and by sev-snp-measure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sevsnpmeasure.gctx import GCTX

from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.snp import (
    VMSA_GPA,
    Imi,
    PageType,
    SnpPage,
    WholeLaunch,
    pages_at,
    pages_of_type,
    snp_digest,
    vmsa_page,
)

FIRMWARE = bytes(range(256)) * 32
HELPER = b"helper".ljust(0x3000, b"\xf4")
VMSA = bytes(range(251)) * 16 + bytes(80)
HELPER_GPA = 0x40_0000_0000

CONTENTS = (PageType.NORMAL, PageType.VMSA)
pages = st.builds(
    lambda kind, page, fill, imi, vmpl: SnpPage(
        kind, page << 12, fill.ljust(4096, b"\0") if kind in CONTENTS else b"", imi, vmpl
    ),
    st.sampled_from(PageType),
    st.integers(0, (1 << 40) - 1),
    st.binary(max_size=4096),
    st.booleans(),
    st.tuples(*[st.integers(0, 15)] * 3),
)


def page_info(digest: bytes, page: SnpPage) -> bytes:
    """By the table of the ABI, a field at a time."""
    info = bytearray(0x70)
    info[0x00:0x30] = digest
    if page.kind in CONTENTS:
        data = bytearray(page.contents)
        if page.kind is PageType.VMSA:
            data[0x2F0:0x2F8] = data[0x2F8:0x300] = bytes(8)
        info[0x30:0x60] = hashlib.sha384(data).digest()
    info[0x60:0x62] = (0x70).to_bytes(2, "little")
    info[0x62] = page.kind.value
    info[0x63] = 1 if page.imi else 0
    info[0x65], info[0x66], info[0x67] = page.vmpl
    info[0x68:0x70] = page.gpa.to_bytes(8, "little")
    return bytes(info)


@given(st.lists(pages, max_size=8))
def test_rule_of_the_abi(launched: list[SnpPage]) -> None:
    ld = imd = bytes(48)
    for page in launched:
        if page.imi:
            imd = hashlib.sha384(page_info(imd, page)).digest()
        ld = hashlib.sha384(page_info(ld, page)).digest()
    digest = snp_digest(launched)
    assert (digest.ld, digest.imd) == (ld, imd)


def plain() -> Iterator[SnpPage]:
    yield from pages_at(0xFFFF_E000, FIRMWARE)
    yield from pages_of_type(PageType.ZERO, 0x800000, 0x9000)
    yield from pages_of_type(PageType.UNMEASURED, 0x80_A000, 0x2000)
    yield SnpPage(PageType.SECRETS, 0x80_D000)
    yield SnpPage(PageType.CPUID, 0x80_E000)
    yield vmsa_page(VMSA)


def test_without_an_incoming_image_it_is_sev_snp_measures() -> None:
    context = GCTX()
    context.update_normal_pages(0xFFFF_E000, FIRMWARE)
    context.update_zero_pages(0x800000, 0x9000)
    context.update_unmeasured_pages(0x80_A000, 0x2000)
    context.update_secrets_page(0x80_D000)
    context.update_cpuid_page(0x80_E000)
    context.update_vmsa_page(VMSA[:0x2F0] + bytes(16) + VMSA[0x300:])
    digest = snp_digest(plain())
    assert digest.ld == context.ld()
    assert digest.imd == bytes(48)


def helper() -> list[SnpPage]:
    return [*pages_at(HELPER_GPA, HELPER), *pages_of_type(PageType.ZERO, HELPER_GPA + 0x3000, 0x2000), vmsa_page(VMSA)]


def test_a_launch_of_the_incoming_image_alone_has_one_digest() -> None:
    digest = snp_digest(WholeLaunch().marked(helper()))
    assert digest.ld == digest.imd != bytes(48)


def test_firmware_before_it_changes_the_launch_and_not_the_image() -> None:
    """What a source and a target of SNP's guest-assisted migration must have in common."""
    incoming = Imi((range(HELPER_GPA, HELPER_GPA + 0x5000),), vmsas=True)
    target = snp_digest(incoming.marked(helper()))
    source = snp_digest(incoming.marked([*(page for page in plain() if page.kind is not PageType.VMSA), *helper()]))
    other = snp_digest(incoming.marked([*pages_at(0xFFFF_F000, bytes(4096)), *helper()]))
    assert target.ld == target.imd == source.imd == other.imd
    assert len({target.ld, source.ld, other.ld}) == 3


@pytest.mark.parametrize("change", ["gpa", "byte", "order", "mark"])
def test_every_difference_of_the_image_shows(change: str) -> None:
    before = snp_digest(WholeLaunch().marked(helper()))
    pages = helper()
    if change == "gpa":
        pages[0] = SnpPage(PageType.NORMAL, HELPER_GPA + 0x10000, pages[0].contents)
    elif change == "byte":
        pages[1] = SnpPage(PageType.NORMAL, pages[1].gpa, bytes([1]) + pages[1].contents[1:])
    elif change == "order":
        pages[0], pages[1] = pages[1], pages[0]
    marked = WholeLaunch().marked(pages)
    if change == "mark":
        marked = Imi((range(HELPER_GPA, HELPER_GPA + 0x5000),), vmsas=False).marked(pages)
    assert snp_digest(marked).imd != before.imd


def test_tsc_of_a_vmsa_is_not_measured() -> None:
    """TSC_SCALE and TSC_OFFSET are the machine's."""
    other = VMSA[:0x2F0] + b"\xa5" * 16 + VMSA[0x300:]
    assert snp_digest([vmsa_page(VMSA)]).ld == snp_digest([vmsa_page(other)]).ld
    assert vmsa_page(VMSA).gpa == VMSA_GPA


@pytest.mark.parametrize(
    ("incoming", "message"),
    [
        (Imi((range(0x1000, 0x3000),), vmsas=False), "incoming image 0x1000 to 0x2fff: no page at 0x2000 is launched"),
        (Imi((), vmsas=True), "incoming image: its VMSAs, but none is launched"),
    ],
)
def test_an_image_that_is_not_launched(incoming: Imi, message: str) -> None:
    with pytest.raises(FirmwareError, match=message):
        incoming.marked(pages_at(0x1000, bytes(4096)))
