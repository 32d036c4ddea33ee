"""Pictures: generated from page tables, whole, and the same for the same tables."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from emulator_tests.report.layouts import layout_of
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES, Geometry
from mh_builder.report.chart import Shape, rounded
from mh_builder.report.layout import Layout
from mh_builder.report.physical import raw_dump
from mh_builder.report.picture import NoPictureError, picture
from mh_builder.report.reader import read_tables
from mh_builder.report.svg import NARROW, WIDE, Style, draw
from mh_builder.schemes.space import RAM_VA

SVG = "{http://www.w3.org/2000/svg}"


def test_columns_hold_every_mapping_once(scheme: str, images: dict[str, Image]) -> None:
    layout = layout_of(images[scheme])
    shown = picture(layout)
    virtual, mirror = shown.columns[:2]
    drawn = [(band.start, band.end) for band in virtual.bands if band.chain is not None]
    assert sum(end - start for start, end in drawn) == sum(mapping.size for mapping in layout.reading.mappings)
    assert drawn == sorted(drawn)
    for column in shown.columns:
        tops = [(band.top, band.height) for band in column.bands]
        position = 0.0
        for top, height in tops:
            assert top == pytest.approx(position)
            assert height >= 13
            position = top + height
    assert mirror.bands[0].start == 0


def test_the_hole_for_the_helper_is_named(scheme: str, images: dict[str, Image]) -> None:
    space = images[scheme].space
    virtual, mirror = picture(layout_of(images[scheme])).columns[:2]
    holes = [[band.start for band in column.bands if "hole: helper" in band.words] for column in (virtual, mirror)]
    named = [] if space.home is None else [space.home]
    # Under alias-gpa the helper itself lies in the hole that the mirror's space has.
    seen = [] if scheme == "alias-gpa" else named
    assert holes == [[RAM_VA + start for start in named], [space.window + start for start in seen]]


def test_what_the_main_vm_cannot_reach_has_no_place_there(images: dict[str, Image]) -> None:
    for scheme in ("regions", "isolated"):
        shown = picture(layout_of(images[scheme]))
        code = [chain for chain in shown.chains if chain.region.purpose == ".text"]
        assert [chain.places[2] is None for chain in code] == [scheme == "isolated"]


@pytest.mark.parametrize("style", [WIDE, NARROW], ids=["wide", "narrow"])
def test_picture_is_well_formed_and_stands_alone(scheme: str, images: dict[str, Image], style: Style) -> None:
    text = draw(layout_of(images[scheme]), style)
    root = ET.fromstring(text)  # noqa: S314 - our own
    assert root.tag == f"{SVG}svg"
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert not list(root.iter(f"{SVG}script"))
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert any(title.startswith(".ring: rw-, shared") for title in titles)
    assert any(title.startswith(".text: r-x, private") for title in titles)
    assert text == draw(layout_of(images[scheme]), style)


def test_views_differ_in_colour_and_pattern(images: dict[str, Image]) -> None:
    root = ET.fromstring(draw(layout_of(images["regions"])))  # noqa: S314 - our own
    for kind, patterned in (("private", False), ("shared", True)):
        bars = [
            bar
            for group in root.iter(f"{SVG}g")
            if group.get("class") == f"chain {kind}"
            for bar in group.iter(f"{SVG}rect")
        ]
        assert bars
        assert all(("url(#" in bar.get("style", "")) == patterned for bar in bars)


@pytest.mark.parametrize("style", [WIDE, NARROW], ids=["wide", "narrow"])
def test_picture_has_a_height_of_its_own(scheme: str, images: dict[str, Image], style: Style) -> None:
    root = ET.fromstring(draw(layout_of(images[scheme]), style))  # noqa: S314 - our own
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"


def test_one_word_for_a_page_that_is_not_mapped(scheme: str, images: dict[str, Image]) -> None:
    columns = picture(layout_of(images[scheme])).columns
    pages = [
        band.words for column in columns for band in column.bands if band.size == PAGE_BYTES and band.chain is None
    ]
    assert len(pages) >= 4
    assert set(pages) == {"guard"}
    for style in (WIDE, NARROW):
        assert draw(layout_of(images[scheme]), style).count(">guard</text>") == len(pages)


def test_vmsas_have_a_place_that_is_the_mirrors_alone(scheme: str, images: dict[str, Image]) -> None:
    shown = picture(layout_of(images[scheme]))
    [number] = [number for number, chain in enumerate(shown.chains) if chain.region.purpose == "VMSAs"]
    bands = shown.columns[3].bands
    heading = next(at for at, band in enumerate(bands) if band.shape is Shape.NOTE)
    assert number in [band.chain for band in bands[heading:]]
    path = next(
        group.find(f"{SVG}path")
        for group in ET.fromstring(draw(layout_of(images[scheme]))).iter(f"{SVG}g")  # noqa: S314 - our own
        if (group.findtext(f"{SVG}title") or "").startswith("VMSAs")
    )
    assert path is not None


def test_addresses_without_ram_are_not_drawn_as_ram(images: dict[str, Image]) -> None:
    for scheme, image in images.items():
        groups = ET.fromstring(draw(layout_of(image))).iter(f"{SVG}g")  # noqa: S314 - our own
        empty = [group for group in groups if group.get("class") == "chain empty"]
        assert len(empty) == (scheme == "alias-gpa"), scheme
        assert all((text.text or "").startswith("no RAM") for group in empty for text in group.iter(f"{SVG}text"))


@pytest.mark.parametrize(
    ("size", "text"), [(PAGE_BYTES, "4 KiB"), (6_480_000, "6.18 MiB"), (1020 << 30, "1020 GiB"), (999 << 20, "999 MiB")]
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert rounded(size) == text


def test_no_picture_of_what_is_not_known() -> None:
    reading = read_tables(raw_dump(bytes(PAGE_BYTES)), 0, Geometry(48, None))
    with pytest.raises(NoPictureError, match=r"^dump: only an image of ours says"):
        draw(Layout("dump", raw_dump(b""), reading))
