"""The comparison as a page and as a drawing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from mh_builder.report.layout import Layout
from mh_builder.schemes import SCHEMES
from mh_compare.page import as_html, as_svg
from mh_compare.results import Comparison
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
    assert html.count('<td class="verdict ') == len(comparison.attacks)
    for kind, outcome in (("refused", "refused"), ("harmless", "harmless garbage"), ("succeeds", "succeeds")):
        number = sum(attack.outcome == outcome for attack in comparison.attacks)
        assert html.count(f'<td class="verdict {kind}"') == number > 0
    hows = [cell.how for cell in comparison.cells] + [attack.how for attack in comparison.attacks]
    assert all(f'{how}"' in html for how in hows)


def test_drawing(layouts: list[Layout]) -> None:
    root = ET.fromstring(as_svg(layouts))  # noqa: S314 - our own
    assert root.tag == SVG
    places = [(float(part.get("y", "")), float(part.get("height", ""))) for part in root.findall(SVG)]
    assert len(places) == len(SCHEMES)
    assert all(y + height <= after for (y, height), (after, _) in pairwise(places))


TELL = "<script>parent.postMessage([innerWidth, document.documentElement.scrollWidth].join(' '), '*')</script>"
LISTEN = '<title></title><iframe src="page.html" width="{}" height="900" style="border:0"></iframe>{}'
SCRIPT = "<script>onmessage = event => document.title = event.data</script>"


@pytest.mark.parametrize("width", [1200, 400])
def test_browser(program: Callable[[str], str], tmp_path: Path, html: str, width: int) -> None:
    """No console error, and nothing to scroll sideways."""
    (tmp_path / "page.html").write_text(html + TELL)
    (tmp_path / "frame.html").write_text(LISTEN.format(width, SCRIPT))
    arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}", "--window-size=1300,1000", "--virtual-time-budget=5000",
        "--dump-dom", f"file://{tmp_path}/frame.html",
    ]  # fmt: skip
    done = subprocess.run([program("chromium"), *arguments], capture_output=True, text=True, check=True, timeout=90)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert title is not None
    inner, scrolled = map(int, title.groups())
    assert inner == width
    assert scrolled <= inner
