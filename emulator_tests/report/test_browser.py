"""The page of `show --html` in a browser: silent, alone, and legible on a wide and on a narrow screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emulator_tests.report.browser import PROGRAM, open_page
from emulator_tests.report.layouts import layout_of
from mh_builder.image.model import Image
from mh_builder.report.html import Cell, PageSection, figure, page, table


def test_page_is_silent_and_legible(program: Callable[[str], str], images: dict[str, Image], tmp_path: Path) -> None:
    rows: list[list[str | Cell]] = [
        ["0xffff800000000000", Cell("hover", "detail & <more>")],
        ["a long sentence " * 20, "x"],
    ]
    sections = [PageSection(name, figure(layout_of(images[name]), "caption")) for name in ("alias-gpa", "isolated")]
    text = page("Title", "lead", [*sections, PageSection("T", table(("a", "b"), rows))])
    opened = open_page(program(PROGRAM), text, tmp_path, (1200, 400))
    assert opened.console == ()
    assert [screen.width for screen in opened.screens] == [1200, 400]
    for screen in opened.screens:
        assert screen.scroll <= screen.width
        assert not screen.resources
        texts = [text for text, *_ in screen.words]
        assert texts.count(".text") + texts.count(".text r-x") >= 3
        assert {"Title", "hover", "caption"} <= set(texts)
        assert min(size for _, size, _, _ in screen.words) >= 8.5
        outside = [text for text, _, left, right in screen.words if left < 0 or right > screen.width]
        assert not outside


def test_browser_reports_what_a_page_says(program: Callable[[str], str], tmp_path: Path) -> None:
    opened = open_page(program(PROGRAM), "<script>console.error('so it is')</script><p>text", tmp_path, (400,))
    assert any("so it is" in line for line in opened.console)
