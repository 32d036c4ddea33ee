"""An image with its owner's key: what its host reads in it, and what an audit of it finds."""

from __future__ import annotations

import pytest

from emulator_tests.attest.machine import C_BIT, HOME, OWNER, image_for
from mh_abi import abi
from mh_abi.image import ImageError, parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES, Geometry
from mh_builder.report.audit import audit
from mh_builder.report.image import image_layout
from mh_builder.schemes.space import Options, Start

SECRET_BYTES = abi.mh_descriptor.fields["secret_bytes"].offset


def test_the_owners_key_lies_in_a_page_that_is_launched() -> None:
    image = image_for()
    section = image.section(".owner")
    assert (section.rights, section.stored) == ("r--", len(OWNER))
    assert image.data[section.offset : section.offset + PAGE_BYTES] == OWNER.ljust(PAGE_BYTES, b"\0")
    assert image.data.count(OWNER) == 1
    assert section.offset + PAGE_BYTES == image.section(".tables").offset


def test_a_host_finds_the_secrets_page() -> None:
    image = image_for()
    assert parse_image(image.data).snp_secrets_offset == image.section(".snp_secrets").offset
    other = build_helper("alias-gpa", Options(start=Start.ES, home=HOME))
    assert parse_image(other.data).snp_secrets_offset is None


def test_a_secrets_page_in_shared_memory_is_no_image() -> None:
    data = bytearray(image_for().data)
    data[SECRET_BYTES : SECRET_BYTES + 4] = (0x40_0000).to_bytes(4, "little")
    with pytest.raises(ImageError, match=r"^image's secrets page ends at 0x[0-9a-f]+, behind its ring at 0x[0-9a-f]+$"):
        parse_image(bytes(data))


def test_an_audit_finds_nothing() -> None:
    image: Image = image_for()
    assert not audit(image_layout(image.data, HOME, Geometry(48, C_BIT))).findings


def test_code_and_constants_stay_below_32_kib() -> None:
    image = image_for()
    assert sum(image.section(name).size for name in (".header", ".text", ".rodata", ".owner", ".data")) < 32 << 10
