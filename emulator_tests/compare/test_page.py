"""The comparison as a page and as a drawing."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from emulator_tests.command.conftest import ROOT
from emulator_tests.report.browser import PROGRAM, open_page
from mh_builder.report.layout import Layout
from mh_builder.schemes import SCHEMES
from mh_compare.markdown import render
from mh_compare.page import as_html, as_svg
from mh_compare.results import Comparison
from mh_compare.rows import families
from mh_compare.run import DEFAULT_PART, subject

SVG = "{http://www.w3.org/2000/svg}svg"


@pytest.fixture(scope="module")
def layouts() -> list[Layout]:
    return [subject(scheme, DEFAULT_PART).layout for scheme in SCHEMES]


@pytest.fixture(scope="module")
def html(comparison: Comparison, layouts: list[Layout]) -> str:
    return as_html(comparison, layouts)


def test_page_needs_nothing_else(html: str) -> None:
    assert not re.search(r"<script|<iframe|@import|url\((?!#)", html)
    addresses = set(re.findall(r"https?://[^\"'<\s]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme:dark" in html


def test_page_says_everything(html: str, comparison: Comparison) -> None:
    assert html.count("<td data-name=") == len(comparison.cells)
    kinds = {"refused": "refused", "detected": "detected", "harmless garbage": "harmless", "succeeds": "succeeds"}
    for attack in comparison.attacks:
        cell = f'<td class="verdict {kinds[attack.outcome]}" data-name="{attack.layout}">'
        assert len(re.findall(f'{cell}<span title="[^"]*{attack.how}[\n"]', html)) == 1, attack
    assert all(f'{cell.how}"' in html for cell in comparison.cells)


def test_rows(comparison: Comparison) -> None:
    """Every result in one row; two starts share it only where all layouts end alike."""
    rows = [row for _, found in families(comparison.attacks) for row in found]
    results = [result for row in rows for cell in row.cells for result in cell]
    assert sorted(map(repr, results)) == sorted(map(repr, comparison.attacks))
    assert {row.start for row in rows} == {"SEV", "SEV-ES", "both"}
    for row in rows:
        assert [[result.layout for result in cell] for cell in row.cells] == [
            [scheme] * (2 if row.start == "both" else 1) for scheme in SCHEMES
        ]
        assert all(len({result.outcome for result in cell}) == 1 for cell in row.cells)


def test_docs_are_up_to_date(comparison: Comparison) -> None:
    page = ROOT / "docs" / "compare.md"
    assert render(comparison) == page.read_text(), "run: build.py compare --markdown > docs/compare.md"


def test_drawing(layouts: list[Layout]) -> None:
    root = ET.fromstring(as_svg(layouts))  # noqa: S314 - our own
    assert root.tag == SVG
    places = [(float(part.get("y", "")), float(part.get("height", ""))) for part in root.findall(SVG)]
    assert len(places) == len(SCHEMES)
    assert all(y + height <= after for (y, height), (after, _) in pairwise(places))


def test_browser(program: Callable[[str], str], tmp_path: Path, html: str) -> None:
    """No console error, no request, nothing to scroll sideways, nothing too small."""
    opened = open_page(program(PROGRAM), html, tmp_path, (1200, 400))
    assert opened.console == ()
    for screen in opened.screens:
        assert screen.scroll <= screen.width
        assert screen.resources == ()
        assert min(size for _, size, _, _ in screen.words) >= 7.5
        assert sum(text == "succeeds" for text, *_ in screen.words) > len(SCHEMES)
