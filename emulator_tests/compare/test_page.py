"""The comparison as a page and as a drawing."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from emulator_tests.command.conftest import ROOT
from emulator_tests.report.browser import PROGRAM, open_page
from mh_builder.report.layout import Layout
from mh_builder.schemes import EVERY_SCHEME, SCHEMES
from mh_compare.drawing import as_svg
from mh_compare.markdown import render
from mh_compare.page import as_html
from mh_compare.results import Comparison
from mh_compare.rows import alike, apart, cell_rows, families
from mh_compare.run import DEFAULT_PART, subject

SVG = "{http://www.w3.org/2000/svg}svg"


@pytest.fixture(scope="module")
def layouts() -> list[Layout]:
    return [subject(scheme, DEFAULT_PART).layout for scheme in EVERY_SCHEME]


@pytest.fixture(scope="module")
def html(comparison: Comparison, layouts: list[Layout]) -> str:
    return as_html(comparison, layouts)


class Marks(HTMLParser):
    """Places, links and `title` attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.places: list[str] = []
        self.links: list[str] = []
        self.titled: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.places += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if tag == "a" else []
        self.titled += [tag] if "title" in found else []


def test_page_needs_nothing_else(html: str) -> None:
    assert not re.search(r"<script|<iframe|@import|url\((?!#)", html)
    addresses = set(re.findall(r"https?://[^\"'<\s]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme:dark" in html


def test_nothing_needs_a_pointer(html: str) -> None:
    """Without hovering, without a script: links and what opens on demand, which fingers and keys reach."""
    marks = Marks(html)
    assert marks.titled == []
    assert len(set(marks.places)) == len(marks.places)
    assert {link.removeprefix("#") for link in marks.links} == {
        place for place in marks.places if not place.startswith("stripes-")
    }
    assert html.count("<details>") == html.count("<summary>") > len(SCHEMES)


def test_page_says_everything(html: str, comparison: Comparison) -> None:
    seen = html.split('<section id="what-was-seen">')[1]
    for how in (*(cell.how for cell in comparison.cells), *(attack.how for attack in comparison.attacks)):
        assert f"<code>{how}</code>" in seen
    for asked in cell_rows(comparison.cells):
        tables = html.split('<section id="what-each')[1]
        assert tables.count(f'<a href="#seen-{asked.cells[0].column}">') == (1 if asked.is_same else 2)
    rows = [row for _, found in families(comparison.mirrors.attacks) for row in found]
    assert html.count('<span class="verdict succeeds">succeeds</span>') > len(rows) / 4
    for row in apart(rows):
        wide = html.split(f'<tr><td><a href="#seen-{row.attack}">')[1].split("</tr>", maxsplit=1)[0]
        assert re.findall(r">(\w+)</span>", wide) == [result.outcome for result in row.results]


def test_cells_of_every_scheme(html: str, comparison: Comparison) -> None:
    tables = html.split('<section id="what-each')[1].split("</section>", maxsplit=1)[0]
    for asked in apart(cell_rows(comparison.cells)):
        wide = tables.split(f'<tr><td><a href="#seen-{asked.cells[0].column}">')[1].split("</tr>", maxsplit=1)[0]
        cells = re.findall(r"<td[^>]*>([^<]*)</td>", wide)
        assert cells == [escape(cell.value) for cell in asked.cells]
        assert len(cells) == len(EVERY_SCHEME)


def test_rows(comparison: Comparison) -> None:
    """Every result in one row; two starts share it only where all layouts end alike."""
    rows = [row for _, found in families(comparison.mirrors.attacks) for row in found]
    results = [result for row in rows for cell in row.cells for result in cell]
    assert sorted(map(repr, results)) == sorted(map(repr, comparison.mirrors.attacks))
    assert {row.start for row in rows} == {"SEV", "SEV-ES", "both"}
    for row in rows:
        assert [[result.layout for result in cell] for cell in row.cells] == [
            [scheme] * (2 if row.start == "both" else 1) for scheme in SCHEMES
        ]
        assert all(len({result.outcome for result in cell}) == 1 for cell in row.cells)


def test_rows_that_are_the_same_are_folded(html: str, comparison: Comparison) -> None:
    rows = [row for _, found in families(comparison.mirrors.attacks) for row in found]
    _, cells, attacks = html.split('<section id="the-same-on', maxsplit=1)[0].split("<h3>The same under all</h3>")
    for row in apart(rows):
        assert f'"#seen-{row.attack}"' not in attacks
    for row in alike(rows):
        assert f'<tr><td><a href="#seen-{row.attack}">' in attacks
    folded = [row.cells[0].column for row in alike(cell_rows(comparison.cells))]
    assert {"policy", "upgrade", "missing-calls"} <= set(folded)
    assert all(f'<tr><td><a href="#seen-{column}">' in cells for column in folded)


def test_where_a_row_was_executed(html: str, comparison: Comparison) -> None:
    elsewhere = {result.attack for result in comparison.attacks if result.part != comparison.part}
    assert elsewhere == {"host-moves-chosen-naples", "host-compares-ciphertext-turin"}
    assert html.count(", on naples</a>") == html.count(", on turin</a>") == 1
    assert "where a row names naples or turin, on that one" in html


def test_docs_are_up_to_date(comparison: Comparison) -> None:
    page = ROOT / "docs" / "compare.md"
    assert render(comparison) == page.read_text(), "run: build.py compare --markdown > docs/compare.md"


def test_drawing(layouts: list[Layout]) -> None:
    root = ET.fromstring(as_svg(layouts))  # noqa: S314 - our own
    assert root.tag == SVG
    places = [(float(part.get("y", "")), float(part.get("height", ""))) for part in root.findall(SVG)]
    assert len(places) == len(EVERY_SCHEME)
    assert all(y + height <= after for (y, height), (after, _) in pairwise(places))
    assert float(root.get("height", "")) == sum(places[-1])
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"


def test_browser(program: Callable[[str], str], tmp_path: Path, html: str) -> None:
    """No console error, no request, nothing to scroll sideways, nothing too small, no endless column of names."""
    opened = open_page(program(PROGRAM), html, tmp_path, (1200, 760, 400))
    assert opened.console == ()
    for screen in opened.screens:
        assert screen.scroll <= screen.width
        assert screen.resources == ()
        assert min(size for _, size, _, _ in screen.words) >= 7.5
        assert sum(text == "succeeds" for text, *_ in screen.words) > len(SCHEMES)
        assert screen.height < 3_600 * len(EVERY_SCHEME)
