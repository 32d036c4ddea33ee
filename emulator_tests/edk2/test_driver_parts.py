"""The driver's portable parts, under ASan and UBSan, beside other implementations of the same things."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator_tests.edk2.native_driver import NativeDriver
from emulator_tests.firmware import wrong
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.paging import GIB, PAGE_BYTES

HOME_SCHEMES = ("alias-gpa", "alias-window", "alias-window-high", "regions")


def test_sha256_at_every_length_around_its_blocks(driver: NativeDriver) -> None:
    data = random.Random(1).randbytes(4096)
    for length in (*range(200), 4095, 4096):
        assert driver.sha256(data[:length]) == hashlib.sha256(data[:length]).digest()


def test_sha256_of_an_image(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    for image in images.values():
        assert driver.sha256(image.data) == hashlib.sha256(image.data).digest()


@pytest.mark.parametrize("name", HOME_SCHEMES)
@pytest.mark.parametrize("c_bit", [47, 51])
def test_relocation_equals_the_emulators(
    driver: NativeDriver, images: Mapping[str, Image], name: str, c_bit: int
) -> None:
    image = parse_image(images[name].data)
    link_base = image.descriptor.link_base
    assert driver.mirror_base(image.data, c_bit) == link_base
    assert driver.relocated(image.data, 0, 1 << c_bit) == image.relocated(link_base, c_bit)


def test_relocation_to_another_base(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    image = parse_image(images["regions"].data)
    link_base = image.descriptor.link_base
    for base in (link_base + 5 * GIB, link_base - GIB):
        assert driver.relocated(image.data, base - link_base, 1 << 51) == image.relocated(base, 51)


def test_relocation_without_sev_changes_nothing(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    for name in HOME_SCHEMES:
        assert driver.relocated(images[name].data, 0, 0) == images[name].data


def test_tuples_decide_the_mirror_base(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    data = images["regions"].data
    assert driver.mirror_base(wrong.moved(data, GIB), 51) == abi.mh_descriptor(data).link_base + GIB


def test_isolated_has_no_place_in_the_guest(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    assert driver.mirror_base(images["isolated"].data, 51) is None


@pytest.mark.parametrize(("field", "value"), wrong.FIELDS)
def test_a_wrong_field_is_refused(
    driver: NativeDriver, images: Mapping[str, Image], field: str, value: wrong.Wrong
) -> None:
    data = images["regions"].data
    assert driver.mirror_base(data, 51) is not None
    assert driver.mirror_base(wrong.with_field(data, field, value), 51) is None


def test_every_field_is_refused_with_some_value() -> None:
    assert {field for field, _ in wrong.FIELDS} == set(abi.mh_descriptor.fields)


@pytest.mark.parametrize(("offset", "count", "kinds"), wrong.RELOCATIONS)
def test_a_wrong_relocation_is_refused(
    driver: NativeDriver, images: Mapping[str, Image], offset: wrong.Wrong, count: int, kinds: int
) -> None:
    data = wrong.with_relocation(images["regions"].data, offset, count, kinds)
    assert driver.mirror_base(data, 51) is None


@pytest.mark.parametrize(("index", "field", "value"), wrong.TUPLES)
def test_a_wrong_tuple_is_refused(
    driver: NativeDriver, images: Mapping[str, Image], index: int, field: str, value: wrong.Wrong
) -> None:
    assert driver.mirror_base(wrong.with_tuple(images["regions"].data, index, field, value), 51) is None


@pytest.mark.parametrize("c_bit", [0, 47])
def test_an_image_for_another_c_bit_is_refused(driver: NativeDriver, images: Mapping[str, Image], c_bit: int) -> None:
    data = wrong.fixed_to(images["alias-gpa"].data, 51)
    assert driver.mirror_base(data, 51) is not None
    assert driver.mirror_base(data, c_bit) is None


def test_any_header_is_read_within_its_bounds(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    whole = images["regions"].data

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 0x1C0 // 4), st.integers(0, (1 << 32) - 1), st.sampled_from([0, 0, 1, PAGE_BYTES]))
    def check(index: int, word: int, bytes_less: int) -> None:
        data = bytearray(whole)
        struct.pack_into("<I", data, index * 4, word)
        image = bytes(data[: len(data) - bytes_less])
        base = driver.mirror_base(image, 51)
        if base is not None:
            # What the driver takes, the emulator's loader takes as well, and to the same effect.
            delta = base - int(abi.mh_descriptor(image).link_base)
            assert driver.relocated(image, delta, 1 << 51) == parse_image(image).relocated(base, 51)

    check()
