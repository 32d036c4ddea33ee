"""Two layouts side by side: everything of both, what is the same told from what is not."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from emulator_tests.report.build import NX, PAGE, Memory, P, U, W
from emulator_tests.report.faults import C_BIT, FAULTS, Patient
from emulator_tests.report.layouts import layout_of
from mh_builder.image.model import Image
from mh_builder.paging import Geometry
from mh_builder.report.chart import Look
from mh_builder.report.diff import pairs
from mh_builder.report.image import image_layout
from mh_builder.report.layout import Layout
from mh_builder.report.pair import MOST_DRAWN, TooManyError, different, joined_picture, same
from mh_builder.report.physical import raw_dump
from mh_builder.report.reader import read_tables
from mh_builder.report.svg import NARROW, WIDE, Style, draw_picture

SVG = "{http://www.w3.org/2000/svg}"


def dump(name: str, entries: dict[int, int], c_bit: int | None = None) -> Layout:
    """A guest that somebody else has made: 4 levels, and these entries in its only page table."""
    memory = Memory()
    root = memory.chain(4, memory.table(entries))
    dumped = raw_dump(bytes(memory.data))
    return Layout(name, dumped, read_tables(dumped, root, Geometry(40, c_bit)))


def mapped(layout: Layout) -> int:
    return sum(mapping.size for mapping in layout.reading.mappings)


@pytest.mark.parametrize("other", ["isolated", "alias-gpa", "regions"])
def test_everything_of_both_is_there_once(images: dict[str, Image], other: str) -> None:
    before, after = layout_of(images["regions"]), layout_of(images[other])
    found = pairs(before, after)
    for layout, regions in ((before, [p.before for p in found]), (after, [p.after for p in found])):
        assert sum(region.mapping.size for region in regions if region) == mapped(layout)
    assert all(pair.before or pair.after for pair in found)
    assert len(different(before, after)[1]) + len(same(before, after)[1]) == len(found)


def test_a_layout_beside_itself(scheme: str, images: dict[str, Image]) -> None:
    layout = layout_of(images[scheme])
    assert different(layout, layout)[1] == []
    shown = joined_picture(layout, layout)
    assert not any(chain.changed for chain in shown.chains)
    assert [column.title for column in shown.columns] == ["GPA", "virtual", "virtual", "GPA"]
    first, second, third, fourth = shown.columns
    assert (first.bands, second.bands) == (fourth.bands, third.bands)


CHANGES = {
    "code-writable": "rights",
    "ring-private": "view",
    "ring-uncached": "memory type",
    "key": "protection key",
}
"""Fault -> what is different."""


@pytest.mark.parametrize(("fault", "kind"), CHANGES.items())
def test_one_change_is_one_row(images: dict[str, Image], fault: str, kind: str) -> None:
    clean, patient = layout_of(images["regions"]), Patient(images["regions"])
    FAULTS[fault].seed(patient)
    changed = image_layout(bytes(patient.data), patient.base, Geometry(48, C_BIT), patient.image.sections)
    [row] = different(clean, changed)[1]
    assert row[0] == kind
    assert row[2] != row[3]
    drawn = [chain for chain in joined_picture(clean, changed).chains if chain.changed]
    # What has other rights or another view is drawn once for each side.
    assert [chain.changed for chain in drawn] == [kind] * (2 if kind in ("rights", "view") else 1)


def test_what_lies_behind_is_said(images: dict[str, Image]) -> None:
    rows = different(layout_of(images["regions"]), layout_of(images["isolated"]))[1]
    [header] = [row for row in rows if row[1] == ".header 4 KiB"]
    assert header[2].endswith("to GPA 0x40000000000, ram_addr 0x4000000")
    assert header[3].endswith("to GPA 0x40000000000, the mirror's own")


@pytest.mark.parametrize("style", [WIDE, NARROW], ids=["wide", "narrow"])
def test_foreign_dumps_are_joined(style: Style) -> None:
    before = dump("a & <b>", {0: 0x5000 | P | W | NX, 1: 0x9000 | P, 7: 0x7000 | P | U})
    after = dump("c", {0: 0x5000 | P | W | NX, 1: 0x8000 | P, 9: 0x7000 | P | W})
    assert [row[0] for row in different(before, after)[1]] == ["moved", "vanished", "appeared"]
    assert [row[0] for row in same(before, after)[1]] == ["4 KiB"]
    shown = joined_picture(before, after)
    assert {chain.look for chain in shown.chains} == {Look.PLAIN}
    root = ET.fromstring(draw_picture(shown, style))  # noqa: S314 - our own
    assert root.findtext(f"{SVG}title") == "Address spaces of a & <b> and c"
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    kinds = [group.get("class") for group in root.iter(f"{SVG}g") if "chain" in (group.get("class") or "")]
    assert kinds == ["chain plain", "chain plain changed", "chain plain changed", "chain plain changed"]


def test_an_image_beside_a_dump(images: dict[str, Image]) -> None:
    ours, foreign = layout_of(images["isolated"]), dump("dump", {3: 0x5000 | P}, 47)
    found = pairs(ours, foreign)
    assert sum(pair.after is not None for pair in found) == 1
    assert {chain.look for chain in joined_picture(ours, foreign).chains} == {Look.PRIVATE, Look.SHARED}


def test_what_cannot_be_told_apart_is_not_drawn() -> None:
    pages = {index: (1000 - index) * PAGE | P for index in range(MOST_DRAWN + 1)}
    layout = dump("many", pages)
    with pytest.raises(TooManyError, match=f"^{MOST_DRAWN + 1} regions, up to {MOST_DRAWN} can be drawn side by side$"):
        joined_picture(layout, layout)
    assert len(same(layout, layout)[1]) == MOST_DRAWN + 1


def test_what_repeats_has_no_place_of_its_size() -> None:
    layout = dump("same page", dict.fromkeys(range(8), 0x5000 | P))
    [chain] = joined_picture(layout, layout).chains
    assert chain.places == (None, 0, 0, None)
