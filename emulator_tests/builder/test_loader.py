"""Images that a loader must not take, and relocation at any base."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mh_abi import abi
from mh_abi.image import ImageError, parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.schemes.space import Options


def patched(image: Image, field: str, value: int) -> bytes:
    descriptor = abi.mh_descriptor(image.data)
    setattr(descriptor, field, value)
    head = descriptor.dumps()
    return bytes(head + image.data[len(head) :])


BAD: dict[str, tuple[Callable[[Image], bytes], str]] = {
    "empty": (lambda _: b"", r"image of 0x0 bytes has no room for a descriptor of 0xa0"),
    "short": (lambda image: image.data[:0x80], r"image of 0x80 bytes has no room for a descriptor of 0xa0"),
    "magic": (lambda image: b"X" + image.data[1:], r"image starts with 0x504c45484d564558, not 0x504c45484d564553"),
    "version": (lambda image: patched(image, "version", 9), f"image has ABI version 9, not {abi.MH_ABI_VERSION}"),
    "truncated": (lambda image: image.data[:-1], r"image has 0x[0-9a-f]+fff bytes, its descriptor says 0x[0-9a-f]+000"),
    "longer": (lambda image: image.data + b"\0", r"image has 0x[0-9a-f]+001 bytes, its descriptor says 0x[0-9a-f]+000"),
    "relocations": (
        lambda image: patched(image, "relocation_count", 1 << 30),
        r"image's relocations end at 0x[0-9a-f]+, its file at 0x[0-9a-f]+",
    ),
    "regions": (
        lambda image: patched(image, "region_offset", 1 << 31),
        r"image's regions end at 0x[0-9a-f]+, its file at 0x[0-9a-f]+",
    ),
    "ring": (
        lambda image: patched(image, "ring_offset", 0x1000),
        r"image's ring at 0x1000 is not behind its 0x[0-9a-f]+ bytes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_image(images: dict[str, Image], case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ImageError, match=f"^{message}$"):
        parse_image(make(images["regions"]))


def test_relocation_beyond_the_image(images: dict[str, Image]) -> None:
    data = bytearray(images["regions"].data)
    offset = abi.mh_descriptor(bytes(data)).relocation_offset
    data[offset : offset + 8] = abi.mh_relocation(offset=len(data) - 8, count=2, kinds=1).dumps()
    with pytest.raises(ImageError, match=r"^relocation ends at 0x[0-9a-f]+, the image at 0x[0-9a-f]+$"):
        parse_image(bytes(data)).relocated(1 << 42, 51)


def test_fixed_base(images: dict[str, Image]) -> None:
    with pytest.raises(ImageError, match=r"^image is fixed to base 0x4000000, not 0x5000000$"):
        parse_image(images["alias-gpa"].data).relocated(0x5000000, 51)


@pytest.mark.parametrize(
    ("base", "c_bit", "message"),
    [
        (0x4000, 51, r"image at 0x4000 to 0x[0-9a-f]+ overlaps RAM 0x0 to 0x1000000000"),
        ((64 << 30) - 0x1000, 51, r"image at 0xffffff000 to 0x[0-9a-f]+ overlaps RAM 0x0 to 0x1000000000"),
        ((1 << 42) + 8, 51, r"base 0x40000000008 is not a multiple of 0x1000"),
        (-0x1000, 51, r"base -0x1000 is not a multiple of 0x1000"),
        ((1 << 47) - 0x1000, 47, r"image at 0x7ffffffff000 to 0x[0-9a-f]+ reaches the C-bit 0x800000000000"),
    ],
)
def test_base_where_the_helper_must_not_lie(images: dict[str, Image], base: int, c_bit: int, message: str) -> None:
    """Seen through the RAM window, which is writable, code and tables would be open to every import."""
    for scheme in ("regions", "isolated"):
        with pytest.raises(ImageError, match=f"^{message}$"):
            parse_image(images[scheme].data).relocated(base, c_bit)


def test_right_above_ram_is_fine(images: dict[str, Image]) -> None:
    assert parse_image(images["isolated"].data).relocated(64 << 30, 51)


def test_loading_elsewhere_equals_linking_there() -> None:
    there = 6 << 40
    moved = parse_image(build_helper("isolated", Options()).data).relocated(there, 51)
    linked = parse_image(build_helper("isolated", Options(base=there)).data).relocated(there, 51)
    offset = abi.mh_descriptor.fields["link_base"].offset
    assert struct.unpack_from("<Q", linked, offset) == (there,)
    assert moved[:offset] + moved[offset + 8 :] == linked[:offset] + linked[offset + 8 :]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_images_give_an_image_error_or_load(data: st.DataObject) -> None:
    """Whatever a byte of the header is changed to: one error of ours, no other exception."""
    image = bytearray(build_helper("regions", Options()).data)
    end = abi.mh_descriptor(bytes(image)).relocation_offset + 64
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    try:
        loaded = parse_image(bytes(image))
        loaded.relocated(loaded.descriptor.link_base, 51)
    except ImageError:
        return
    assert len(loaded.data) == len(image)
