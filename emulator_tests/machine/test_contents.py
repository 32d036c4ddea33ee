"""RAM contents that lie in a file."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from emulator_tests.helper.test_migrate import scenario
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES
from mh_emulator.guest.contents import ContentsError, FileContents
from mh_emulator.host.migration import run

DATA = random.Random("contents").randbytes(3 * PAGE_BYTES + 5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "ram"
    written.write_bytes(DATA)
    return written


@pytest.mark.parametrize("part", [slice(0, 9), slice(None), slice(PAGE_BYTES, None), slice(-3, None), slice(9, 3)])
def test_a_file_is_cut_as_its_bytes_are(path: Path, part: slice) -> None:
    with FileContents(path) as contents:
        assert (len(contents), contents[part]) == (len(DATA), DATA[part])
        behind = slice(len(DATA) - 1, len(DATA) + PAGE_BYTES)
        assert contents[behind] == DATA[behind]


def test_a_guest_from_a_file_is_the_same_guest(path: Path, images: dict[str, Image]) -> None:
    given = scenario(images["regions"])
    with FileContents(path) as contents:
        from_file = run(replace(given, contents=contents))
    assert from_file.good
    assert replace(from_file, seconds=0) == replace(run(replace(given, contents=DATA)), seconds=0)


def test_a_file_that_is_cut_short_meanwhile(path: Path) -> None:
    with FileContents(path) as contents:
        path.write_bytes(DATA[:100])
        assert contents[90:100] == DATA[90:100]
        with pytest.raises(ContentsError, match=rf"^RAM file {path} had {len(DATA):#x} bytes, 0x64 are left$"):
            contents[90:110]


def test_what_a_file_gets_afterwards_is_left_out(path: Path) -> None:
    with FileContents(path) as contents:
        path.write_bytes(DATA + DATA)
        assert contents[:] == DATA
