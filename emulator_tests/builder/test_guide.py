"""payload/README.md: its table of uses is that of the sources, its memory that of a linked image."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from emulator_tests.command.conftest import docs_program
from mh_builder.helper import build_helper
from mh_builder.schemes.space import Options


@pytest.fixture(scope="module")
def calls() -> ModuleType:
    return docs_program("calls")


def test_uses_are_those_of_the_sources(calls: ModuleType) -> None:
    text = calls.PAGE.read_text()
    assert text == calls.page(text), "run `python docs/calls.py`"


def test_every_symbol_that_a_file_names_it_uses(calls: ModuleType) -> None:
    """Else the table would show what is not so."""
    for name, text in calls.sources().items():
        code = re.sub(r"^\.extern .*$|#.*$", "", text, flags=re.MULTILINE)
        for symbol in re.findall(r"^\.extern ([\w.]+)", text, re.MULTILINE):
            assert re.search(rf"(?<![\w.]){re.escape(symbol)}\b", code), f"{name} does not use {symbol}"


def test_every_source_is_in_the_order_of_reading_or_the_table(calls: ModuleType) -> None:
    text = calls.PAGE.read_text()
    assert [name for name in calls.sources() if f"`{name}`" not in text] == []


def test_memory_is_that_of_an_image(calls: ModuleType) -> None:
    rows = re.findall(r"^\| `(\.\w+)` \| (\S+) \|", calls.PAGE.read_text(), re.MULTILINE)
    image = build_helper("regions", Options(strict=True, ram_limit=1 << 30))
    assert rows == [(section.name, section.rights) for section in image.sections]
