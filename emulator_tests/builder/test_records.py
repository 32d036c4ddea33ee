"""A scheme is one record, and a part is one record: a further one needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from emulator_tests.command.conftest import ROOT
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.parts import PARTS, Part
from mh_builder.schemes import EVERY_SCHEME, SCHEMES, name_of, starting
from mh_builder.schemes.space import Options, Start
from mh_emulator.host.migration import Scenario, run
from mh_emulator.psp.build import BUILDS


def test_every_number_has_a_record() -> None:
    assert sorted({int(scheme.number) for scheme in EVERY_SCHEME.values()}) == sorted(map(int, abi.mh_scheme))
    assert [scheme.name for scheme in EVERY_SCHEME.values()] == list(EVERY_SCHEME)


def test_every_scheme_has_a_start() -> None:
    assert {start: starting(start) for start in Start} == {
        Start.HOST: list(SCHEMES),
        Start.ES: list(SCHEMES),
        Start.SNP: ["vmpl"],
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_image_tells_its_scheme(scheme: str) -> None:
    descriptor = parse_image(build_helper(scheme, Options()).data).descriptor
    assert name_of(descriptor.scheme, descriptor.window) == scheme


def test_loaders_know_the_kind_of_every_scheme() -> None:
    """What the ABI says of a number is what images of that scheme are."""
    images = [parse_image(build_helper(scheme, Options()).data) for scheme in SCHEMES]
    loaded = [image for image in images if image.home is not None]
    at_home = {1 << image.descriptor.scheme for image in loaded if not image.hands_over}
    with_tuples = {1 << image.descriptor.scheme for image in loaded if image.hands_over}
    assert (sum(at_home), sum(with_tuples)) == (abi.MH_SCHEMES_AT_HOME, abi.MH_SCHEMES_WITH_TUPLES)


def test_unknown_number_is_named_as_such() -> None:
    assert name_of(99, 0) == "scheme 99"


def test_schemes_are_told_apart_in_their_own_files_alone() -> None:
    folders = ("mh_builder", "mh_emulator", "mh_cli", "mh_compare", "mh_abi", "payload", "ovmf_patches")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".s", ".c"}]
    naming = {path.relative_to(ROOT) for path in files if re.search(r"MH_SCHEME_\w", path.read_text())}
    assert {path.parent for path in naming} == {Path("mh_builder/schemes")}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_part_is_within_the_abi(part: Part) -> None:
    assert abi.MH_LOWEST_CBIT <= part.c_bit <= abi.MH_HIGHEST_CBIT
    assert part.firmware in BUILDS


def test_lowest_and_highest_are_those_of_parts() -> None:
    c_bits = {part.c_bit for part in PARTS.values()}
    assert (min(c_bits), max(c_bits)) == (abi.MH_LOWEST_CBIT, abi.MH_HIGHEST_CBIT)


def test_sixth_part_is_one_entry() -> None:
    part = replace(PARTS["genoa"], name="sixth", signature=0x00C0_0F10, c_bit=50, physical_bits=51)
    helper = parse_image(build_helper("alias-window-high", Options.for_part(part)).data)
    report = run(Scenario("alias-window-high", part, helper, 0, bytes(range(256)) * 64))
    assert report.equal
    assert report.guest_ok
