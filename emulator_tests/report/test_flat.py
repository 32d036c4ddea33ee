"""A flat image without section headers: its report has the sections that the linker made."""

from __future__ import annotations

import pytest

from emulator_tests.report.layouts import MILAN
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image, PlacedSection
from mh_builder.paging import PAGE_BYTES
from mh_builder.report.image import image_layout
from mh_builder.schemes.space import Options, Start

BUILDS = {
    "plain": Options(),
    "es": Options(start=Start.ES, vcpus=3),
    "strict": Options(strict=True, vcpus=2),
}


@pytest.mark.parametrize("build", BUILDS)
def test_sections_are_the_linkers(scheme: str, build: str) -> None:
    agree(build_helper(scheme, BUILDS[build]))


def test_sections_of_a_helper_for_snp() -> None:
    agree(build_helper("vmpl", Options(start=Start.SNP, owner=b"\1" * 32, strict=True, vcpus=2)))


def agree(image: Image) -> None:
    flat = image_layout(parse_image(image.data).relocated(image.space.base, 51), image.space.base, MILAN)
    assert flat.plan is not None
    assert seen(flat.plan.sections) == seen(image.sections)


def seen(sections: tuple[PlacedSection, ...]) -> list[tuple[str, int, int, int, str, bool]]:
    """All that tables can tell of sections: they count pages."""
    return [
        (part.name, part.offset, part.pages, -(-part.stored // PAGE_BYTES), part.rights, part.private)
        for part in sections
        if part.size
    ]
