"""The driver's portable parts, under ASan and UBSan, beside other implementations of the same things."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator_tests.edk2.native_driver import TABLES, NativeDriver, compile_driver
from mh_builder.image.model import Image
from mh_builder.paging import GIB, MIB, PAGE_BYTES, Geometry, Hole, Leaf, Span, Tables, walk
from mh_emulator.loader import parse_image
from payload import abi

HOME_SCHEMES = ("alias-gpa", "alias-window", "alias-window-high", "regions")


@pytest.fixture(scope="module")
def driver(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeDriver]:
    path: Path = tmp_path_factory.mktemp("native") / "driver"
    compile_driver(program("cc"), path)
    with NativeDriver(path) as running:
        yield running


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
    link_base = int(image.descriptor.link_base)
    assert driver.mirror_base(image.data, c_bit) == link_base
    assert driver.relocated(image.data, 0, 1 << c_bit) == image.relocated(link_base, c_bit)


def test_relocation_to_another_base(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    image = parse_image(images["regions"].data)
    link_base = int(image.descriptor.link_base)
    for base in (link_base + 5 * GIB, link_base - GIB):
        assert driver.relocated(image.data, base - link_base, 1 << 51) == image.relocated(base, 51)


def test_relocation_without_sev_changes_nothing(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    for name in HOME_SCHEMES:
        assert driver.relocated(images[name].data, 0, 0) == images[name].data


def test_tuples_decide_the_mirror_base(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    data = bytearray(images["regions"].data)
    descriptor = abi.mh_descriptor(data)
    size = len(abi.mh_region)
    for index in range(descriptor.region_count):
        offset = descriptor.region_offset + index * size
        region = abi.mh_region(data[offset : offset + size])
        region.mirror_gpa += GIB
        data[offset : offset + size] = region.dumps()
    assert driver.mirror_base(bytes(data), 51) == descriptor.link_base + GIB


def test_isolated_has_no_place_in_the_guest(driver: NativeDriver, images: Mapping[str, Image]) -> None:
    assert driver.mirror_base(images["isolated"].data, 51) is None


def changed(data: bytes, field: str, value: int) -> bytes:
    descriptor = abi.mh_descriptor(data)
    setattr(descriptor, field, value)
    return bytes(descriptor.dumps()) + data[len(abi.mh_descriptor) :]


Wrong = Callable[[Any], int]
"""A value that a field must not have, made from the sound structure."""


def constant(value: int) -> Wrong:
    return lambda _: value


def more(field: str, by: int) -> Wrong:
    return lambda descriptor: int(getattr(descriptor, field)) + by


WRONG: list[tuple[str, Wrong]] = [
    ("magic", constant(0)),
    ("version", more("version", 1)),
    *(("scheme", constant(value)) for value in (0, 1, 4, 5)),
    ("descriptor_bytes", more("descriptor_bytes", 8)),
    *(("flags", constant(value)) for value in (abi.MH_FLAG_FIXED_CBIT, 8, 1 << 63)),
    *(("image_bytes", more("image_bytes", by)) for by in (-PAGE_BYTES, 1)),
    *(("memory_bytes", more("memory_bytes", by)) for by in (-PAGE_BYTES, 1, 1 << 32)),
    *(("link_base", more("link_base", by)) for by in (1, 1 << 50)),
    *(("home", constant(value)) for value in (1, 0x500_0000, 0xFFFF_F000, abi.MH_NO_HOME)),
    *(("window", constant(value)) for value in (1, 1 << 51)),
    ("window", more("link_base", 0)),
    *(("ram_limit", constant(value)) for value in (0, 4095, 1 << 52)),
    *(("cr3", more("cr3", by)) for by in (1, -(1 << 30), 1 << 30)),
    *(("entry64", constant(value)) for value in (0, 1 << 60)),
    *(("stack64", constant(value)) for value in (8, 1 << 60)),
    ("c_bit", constant(51)),
    *(("ring_offset", more("ring_offset", by)) for by in (1, PAGE_BYTES)),
    ("ring_offset", constant(0)),
    *(("ring_count", constant(value)) for value in (0, 0xFFFF_FFFF)),
    ("ring_count", more("ring_count", 1)),
    *(("secret_offset", more("secret_offset", by)) for by in (8, 1 << 28)),
    ("secret_offset", constant(0)),
    ("secret_offset", more("ring_offset", 0)),
    *(("secret_bytes", constant(value)) for value in (0, 8, 0xFFFF_F000)),
    *(("relocation_offset", constant(value)) for value in (4, 0xFFFF_FFF8)),
    ("relocation_count", constant(0xFFFF_FFFF)),
    *(("region_offset", constant(value)) for value in (4, 0xFFFF_FFF8)),
    *(("region_count", constant(value)) for value in (0, abi.MH_HANDOVER_REGIONS + 1, 0xFFFF_FFFF)),
    ("entry32", constant(1)),
    *(("vmsa_offset", constant(value)) for value in (1, 1 << 51)),
    ("ring_stride", more("ring_stride", PAGE_BYTES)),
    ("vcpu_stride", constant(8)),
]


@pytest.mark.parametrize(("field", "wrong"), WRONG)
def test_a_wrong_field_is_refused(driver: NativeDriver, images: Mapping[str, Image], field: str, wrong: Wrong) -> None:
    data = images["regions"].data
    assert driver.mirror_base(data, 51) is not None
    assert driver.mirror_base(changed(data, field, wrong(abi.mh_descriptor(data))), 51) is None


def test_every_field_is_refused_with_some_value() -> None:
    assert {field for field, _ in WRONG} == set(abi.mh_descriptor.fields)


CR3 = abi.mh_descriptor.fields["cr3"].offset


@pytest.mark.parametrize(
    ("offset", "count", "kinds"),
    [
        (more("image_bytes", -8), 2, 1), (more("image_bytes", 0), 1, 1), (constant(0x6004), 1, 1),
        (constant(0x6000), 1, 4), (constant(CR3 - 8), 1, 1), (constant(CR3), 2, 1),
        (more("relocation_offset", 0), 1, 1), (constant(0xFFFF_FFF8), 1, 1),
    ],
)  # fmt: skip
def test_a_wrong_relocation_is_refused(
    driver: NativeDriver, images: Mapping[str, Image], offset: Wrong, count: int, kinds: int
) -> None:
    data = bytearray(images["regions"].data)
    descriptor = abi.mh_descriptor(data)
    record = abi.mh_relocation(offset=offset(descriptor), count=count, kinds=kinds).dumps()
    place = int(descriptor.relocation_offset)
    data[place : place + len(record)] = record
    assert driver.mirror_base(bytes(data), 51) is None


@pytest.mark.parametrize(
    ("index", "field", "wrong"),
    [
        (0, "main_gpa", more("main_gpa", PAGE_BYTES)), (0, "main_gpa", constant(0)), (0, "length", constant(0)),
        (0, "length", more("length", 1)), (0, "length", constant(1 << 40)), (0, "mirror_gpa", constant(1 << 51)),
        (0, "mirror_gpa", more("mirror_gpa", 8)), (0, "kind", constant(1)), (1, "kind", constant(0)),
        (1, "kind", constant(2)), (1, "main_gpa", more("main_gpa", 1)),
        (1, "main_gpa", constant((1 << 64) - PAGE_BYTES)), (1, "mirror_gpa", more("mirror_gpa", PAGE_BYTES)),
        (1, "length", more("length", PAGE_BYTES)),
    ],
)  # fmt: skip
def test_a_wrong_tuple_is_refused(
    driver: NativeDriver, images: Mapping[str, Image], index: int, field: str, wrong: Wrong
) -> None:
    """`wrong` is made from the tuple here."""
    data = bytearray(images["regions"].data)
    place = int(abi.mh_descriptor(data).region_offset) + index * len(abi.mh_region)
    region = abi.mh_region(data[place : place + len(abi.mh_region)])
    setattr(region, field, wrong(region))
    data[place : place + len(abi.mh_region)] = region.dumps()
    assert driver.mirror_base(bytes(data), 51) is None


@pytest.mark.parametrize("c_bit", [0, 47])
def test_an_image_for_another_c_bit_is_refused(driver: NativeDriver, images: Mapping[str, Image], c_bit: int) -> None:
    data = changed(changed(images["alias-gpa"].data, "flags", 3), "c_bit", 51)
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


def leaf(tables: bytes, address: int, geometry: Geometry) -> Leaf | Hole:
    def read(gpa: int) -> int:
        return int(struct.unpack_from("<Q", tables, gpa - TABLES)[0])

    return walk(read, TABLES, address, geometry)


def made(levels: int, largest: int, c_mask: int) -> bytes:
    """4 GiB, identity: private, read and write, not to be executed."""
    tables = Tables(0, levels, largest)
    tables.map(Span(0, 0, 4 * GIB, writable=True, executable=False, private=True))
    return tables.dumps(TABLES, c_mask)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("largest", [GIB, 2 * MIB])
@pytest.mark.parametrize("c_bit", [47, 51])
def test_one_page_is_shared_and_nothing_else_changes(
    driver: NativeDriver, levels: int, largest: int, c_bit: int
) -> None:
    geometry = Geometry(48, c_bit, levels)
    before = made(levels, largest, 1 << c_bit)
    address = 0x441_A000
    is_shared, after = driver.share(before, levels, 1 << c_bit, address + 0x123)
    assert is_shared
    neighbours = [address + offset for offset in (-MIB, -PAGE_BYTES, PAGE_BYTES, MIB)]
    others = [*neighbours, *range(0, 4 * GIB, 2 * MIB), *range(0x440_0000, 0x460_0000, PAGE_BYTES)]
    for other in others:
        if other == address:
            continue
        old, new = leaf(before, other, geometry), leaf(after, other, geometry)
        assert isinstance(old, Leaf)
        assert isinstance(new, Leaf)
        assert (new.gpa, new.writable, new.user, new.executable, new.private) == (other, True, False, False, True)
    page = leaf(after, address, geometry)
    assert isinstance(page, Leaf)
    assert (page.gpa, page.page_bytes, page.private, page.writable) == (address, PAGE_BYTES, False, True)
    # Table walks are private, and the firmware's own code looks for the C-bit in pointers as well.
    assert all(entry & 1 << c_bit for level, _, entry in page.path if level > 1)


def test_rights_and_caching_of_a_large_page_are_kept(driver: NativeDriver) -> None:
    tables = bytearray(made(4, 2 * MIB, 1 << 51))
    at = (leaf(bytes(tables), 0x400000, Geometry(48, 51)).path[-1][1]) - TABLES
    entry = struct.unpack_from("<Q", tables, at)[0]
    user, write_through, no_cache, glob, pat, available = 1 << 2, 1 << 3, 1 << 4, 1 << 8, 1 << 12, 1 << 52
    extra = user | write_through | no_cache | glob | pat | available
    struct.pack_into("<Q", tables, at, entry | extra)
    is_shared, after = driver.share(bytes(tables), 4, 1 << 51, 0x400000)
    assert is_shared
    path = leaf(after, 0x401000, Geometry(48, 51)).path
    assert path[-2][2] & user
    small = path[-1][2]
    # In a 4 KiB entry PAT is bit 7, where a larger one says that it is large.
    assert small & 0xFFF == (entry | user | write_through | no_cache | glob) & 0xFFF | 1 << 7
    assert small & available
    assert small & 0x000F_FFFF_FFFF_F000 & ~(1 << 51) == 0x401000


@pytest.mark.parametrize("address", [4 * GIB, 1 << 39])
def test_an_address_that_is_not_mapped_stays_so(driver: NativeDriver, address: int) -> None:
    before = made(4, GIB, 1 << 51)
    is_shared, after = driver.share(before, 4, 1 << 51, address)
    assert not is_shared
    assert after[: len(before)] == before
    assert not any(after[len(before) :])
