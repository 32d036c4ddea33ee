"""Broken files: what reads them ends soon, with a layout or with one of its own errors."""

from __future__ import annotations

import argparse
import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mh_abi import abi
from mh_abi.image import ImageError
from mh_builder.image.elf import write_elf
from mh_builder.image.model import Image
from mh_builder.report.audit import audit
from mh_builder.report.physical import DumpError
from mh_builder.report.picture import NoPictureError
from mh_builder.report.svg import draw
from mh_builder.report.trace import BadAddressError, reaching_gpa, route
from mh_cli.errors import UsageError
from mh_cli.source import add_memory, read_layout

EXPECTED = (DumpError, ImageError, UsageError, NoPictureError, BadAddressError)
WORDS = st.one_of(
    st.sampled_from([0, 1, 0x1000, 0xFFF, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 47, 1 << 51, 1 << 63, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds themselves are tested elsewhere; here they only cost time."""
    monkeypatch.setattr("mh_builder.report.reader.MAX_MAPPINGS", 500)


def look_at(path: Path, arguments: list[str]) -> None:
    """Everything that the verbs do with a file."""
    parser = argparse.ArgumentParser()
    add_memory(parser)
    with suppress(*EXPECTED):
        layout = read_layout(path, parser.parse_args(arguments))
        assert layout.regions is not None
        audit(layout)
        for region in layout.regions[:4]:
            route(layout, region.mapping.va)
            reaching_gpa(layout, region.mapping.gpa)
        draw(layout)


EXAMPLES = 20
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", ["bin", "elf"])
@FUZZ
@given(st.data())
def test_images_with_other_headers(kind: str, images: dict[str, Image], tmp_path: Path, data: st.DataObject) -> None:
    image = images["alias-window"]
    whole = bytearray(image.data if kind == "bin" else write_elf(image))
    start = 0 if kind == "bin" else data.draw(st.sampled_from([0, 0x1000]))
    size = len(abi.mh_descriptor) + len(abi.mh_params)
    for _ in range(data.draw(st.integers(1, 3))):
        width, code = data.draw(st.sampled_from([(8, "<Q"), (4, "<I"), (2, "<H")]))
        offset = start + data.draw(st.integers(8 // width, size // width)) * width
        struct.pack_into(code, whole, offset, data.draw(WORDS) & (1 << 8 * width) - 1)
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole))) :]
    path = tmp_path / "image"
    path.write_bytes(whole)
    look_at(path, [])


@FUZZ
@given(st.data())
def test_images_with_other_tables(images: dict[str, Image], tmp_path: Path, data: st.DataObject) -> None:
    image = images["regions"]
    whole = bytearray(image.data)
    tables = image.section(".tables")
    for _ in range(data.draw(st.integers(1, 6))):
        place = tables.offset + 8 * data.draw(st.integers(0, tables.size // 8 - 1))
        near = image.space.base + data.draw(st.integers(0, 40)) * 0x1000
        struct.pack_into(
            "<Q", whole, place, data.draw(st.one_of(WORDS, st.sampled_from([near | 3, near | 0x83, near | 1])))
        )
    path = tmp_path / "image"
    path.write_bytes(whole)
    look_at(path, [])


@FUZZ
@given(st.integers(0, 1 << 32), st.integers(1, 6), st.sampled_from([[], ["--la57"], ["--pae"], ["--part", "rome"]]))
def test_noise_as_a_dump(tmp_path: Path, seed: int, pages: int, options: list[str]) -> None:
    """Half of the words point into the dump."""
    chance = random.Random(seed)
    words = [chance.choice((chance.getrandbits(64), chance.randrange(pages) << 12 | 3)) for _ in range(pages * 512)]
    path = tmp_path / "dump"
    path.write_bytes(struct.pack(f"<{len(words)}Q", *words))
    look_at(path, ["--cr3", "0", *options])
