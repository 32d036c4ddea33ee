"""What the linked page tables really map, read back by a walker of the tests' own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import GIB
from mh_builder.parts import PARTS, CpuidResult, Part
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET, Options

PAGE = 0x1000


class Mapping(NamedTuple):
    """One leaf entry."""

    va: int
    gpa: int
    size: int
    writable: bool
    executable: bool
    private: bool


def leaves(image: Image, base: int, c_bit: int) -> list[Mapping]:
    """Every leaf of the image's tables, loaded at `base`."""
    data = parse_image(image.data).relocated(base, c_bit)
    cr3 = parse_image(data).descriptor.cr3
    return list(_descend(data, base, c_bit, cr3, 4, 0, True, True))


def _descend(
    data: bytes, base: int, c_bit: int, table: int, level: int, va: int, writable: bool, executable: bool
) -> Iterator[Mapping]:
    assert table >> c_bit & 1, "tables are private memory"
    place = (table & ~(1 << c_bit) & 0x000FFFFFFFFFF000) - base
    assert 0 <= place < len(data), "tables lie in the image"
    for index, entry in enumerate(struct.unpack_from("<512Q", data, place)):
        if not entry & 1:
            assert entry == 0
            continue
        here = va | index << (12 + 9 * (level - 1))
        may_write, may_execute = writable and bool(entry & 2), executable and not entry >> 63
        if level > 1 and not entry & 0x80:
            yield from _descend(data, base, c_bit, entry, level - 1, here, may_write, may_execute)
            continue
        here |= 0xFFFF << 48 if here >> 47 & 1 else 0
        gpa = entry & 0x000FFFFFFFFFF000 & ~(1 << c_bit)
        yield Mapping(here, gpa, 1 << (12 + 9 * (level - 1)), may_write, may_execute, bool(entry >> c_bit & 1))


CASES = [
    ("alias-gpa", None, 51),
    ("alias-gpa", None, 47),
    ("alias-window", None, 51),
    ("alias-window-high", None, 47),
    ("regions", None, 51),
    ("regions", (4 << 40) + 0x123000, 47),
    ("isolated", None, 51),
    ("isolated", (5 << 40) + 0xABC000, 47),
]


SMALL_PAGES = 2 << 20
CASES_OF_PAGES = [
    *((*case, GIB) for case in CASES),
    *((scheme, None, 51, SMALL_PAGES) for scheme in SCHEMES),
]


@pytest.fixture(scope="session")
def small_images() -> dict[str, Image]:
    """Every scheme for a part without 1 GiB pages."""
    return {scheme: build_helper(scheme, Options(largest_page=SMALL_PAGES)) for scheme in SCHEMES}


@pytest.fixture(
    params=CASES_OF_PAGES,
    ids=[f"{scheme}-{c_bit}-{base or 'linked'}-{largest:#x}" for scheme, base, c_bit, largest in CASES_OF_PAGES],
)
def loaded(
    request: pytest.FixtureRequest, images: dict[str, Image], small_images: dict[str, Image]
) -> tuple[Image, int, list[Mapping]]:
    """(image, base, its mappings)."""
    scheme, base, c_bit, largest = request.param
    image = (images if largest == GIB else small_images)[scheme]
    base = image.space.base if base is None else base
    return image, base, leaves(image, base, c_bit)


Loaded = tuple[Image, int, list[Mapping]]


def overlap(mapping: Mapping, start: int, end: int) -> bool:
    return mapping.gpa < end and start < mapping.gpa + mapping.size


def start_page(image: Image) -> Mapping | None:
    """The page of the 32-bit start at its own address, which only images below 4 GiB have."""
    start = parse_image(image.data).descriptor.entry32
    if image.space.name in ("regions", "isolated"):
        assert start == 0
        return None
    assert image.space.base < start < image.space.base + image.section(".rodata").offset
    page = start // PAGE * PAGE
    return Mapping(page, page, PAGE, writable=False, executable=True, private=True)


def other_than_start(image: Image, mappings: list[Mapping]) -> list[Mapping]:
    """The mappings without the one of the 32-bit start, which must be there exactly once."""
    page = start_page(image)
    assert mappings.count(page) == (page is not None)  # type: ignore[arg-type]
    return [mapping for mapping in mappings if mapping != page]


def window_va(image: Image) -> int:
    """Where the helper's code looks for request address 0."""
    return int(abi.mh_params(image.data[len(abi.mh_descriptor) :]).window_va)


def vmsas(image: Image, base: int) -> dict[int, tuple[int, bool, bool, bool]]:
    """Where the window for VMSAs must be: behind the image that moves, behind all RAM elsewhere."""
    moves = image.space.name in ("regions", "isolated")
    limit = image.space.options.ram_limit
    start = base + image.memory_bytes if moves else image.space.window + limit
    va = HELPER_VA + image.memory_bytes if moves else window_va(image) + limit
    assert (base + parse_image(image.data).descriptor.vmsa_offset) % (1 << 64) == start
    return {va + page: (start + page, True, False, True) for page in range(0, abi.MH_VMSA_BYTES, PAGE)}


def test_start_page_holds_all_of_the_32_bit_start(loaded: Loaded) -> None:
    image, _, mappings = loaded
    pieces = [piece for piece in image.section(".text").pieces if piece.name == "payload/start32.s"]
    page = start_page(image)
    assert len(pieces) == (page is not None)
    for piece in pieces:
        assert page in mappings
        first = image.space.base + image.section(".text").offset + piece.offset
        assert page is not None
        assert page.gpa <= first < first + piece.size <= page.gpa + PAGE


def test_nothing_is_writable_and_executable(loaded: Loaded) -> None:
    assert not [mapping for mapping in loaded[2] if mapping.writable and mapping.executable]


def test_sections_have_their_rights_and_nothing_else_is_up_there(loaded: Loaded) -> None:
    image, base, mappings = loaded
    expected = {va: place for va, place in vmsas(image, base).items() if va >= HELPER_VA} | {
        section.va + page: (base + section.offset + page, section.writable, section.executable, section.private)
        for section in image.sections
        for page in range(0, section.size, PAGE)
    }
    found = {m.va: (m.gpa, m.writable, m.executable, m.private) for m in mappings if m.va >= HELPER_VA}
    assert found == expected
    assert all(mapping.size == PAGE for mapping in mappings if mapping.va >= HELPER_VA)


def test_only_text_executes_and_only_the_ring_is_shared(loaded: Loaded) -> None:
    image, _, mappings = loaded
    mappings = other_than_start(image, mappings)
    text, ring = image.section(".text"), image.section(".ring")
    for mapping in mappings:
        assert mapping.executable == (text.va <= mapping.va < text.va + text.pages * PAGE)
        assert mapping.private != (ring.va <= mapping.va < ring.va + ring.size)
    assert ring.va == HELPER_VA + ring.offset + SHARED_OFFSET


def test_guard_pages_below_both_stacks(loaded: Loaded) -> None:
    image, _, mappings = loaded
    mapped = {mapping.va for mapping in mappings}
    for name in (".stack", ".fault_stack"):
        assert image.section(name).va in mapped
        assert image.section(name).va - PAGE not in mapped


def test_helper_cannot_be_reached_through_ram(loaded: Loaded) -> None:
    """Neither at its mirror GPA nor where its home appears in the RAM window; but for the page of the 32-bit start."""
    image, base, mappings = loaded
    mappings = other_than_start(image, mappings)
    places = [(base, base + image.memory_bytes)]
    places += [(image.space.window + part.start, image.space.window + part.end) for part in image.space.protected]
    for mapping in mappings:
        if mapping.va < HELPER_VA:
            assert not any(overlap(mapping, *place) for place in places)
    assert len(image.space.protected) == {"isolated": 0, "alias-gpa": 2}.get(image.space.name, 1)


def test_a_wiped_pointer_reaches_nothing(loaded: Loaded) -> None:
    """Nor does a request address that is used without the address of the window."""
    image, _, mappings = loaded
    assert all(mapping.va >= 4 << 40 for mapping in other_than_start(image, mappings))
    page = start_page(image)
    assert page is None or page.va >= 2 << 20


def test_all_other_ram_is_reachable(loaded: Loaded) -> None:
    """The window is complete, in the order of GPAs, private, writable, with the part's largest pages where they fit."""
    image, _, mappings = loaded
    low = sorted(mapping for mapping in other_than_start(image, mappings) if mapping.va < HELPER_VA)
    behind = {va for va in vmsas(image, image.space.base) if va < HELPER_VA}
    window = [mapping for mapping in low if mapping.va not in behind]
    assert sum(mapping.size for mapping in low if mapping.va in behind) == PAGE * len(behind)
    start_va = window_va(image)
    assert all((mapping.gpa - image.space.window, mapping.private) == (mapping.va - start_va, True) for mapping in low)
    position = start_va
    holes = [(start_va + part.start, start_va + part.end) for part in image.space.protected]
    for mapping in window:
        assert mapping.writable
        if holes and position == holes[0][0]:
            position = holes.pop(0)[1]
        assert mapping.va == position
        position += mapping.size
    assert not holes
    assert position == start_va + image.space.options.ram_limit
    largest = image.space.options.largest_page
    assert largest in (GIB, SMALL_PAGES)
    holes_in_largest = sum(-(-part.end // largest) - part.start // largest for part in image.space.protected)
    assert (
        sum(mapping.size == largest for mapping in window)
        == image.space.options.ram_limit // largest - holes_in_largest
    )
    assert max(mapping.size for mapping in window) == largest


def test_smaller_pages_take_a_table_for_each_gibibyte(
    scheme: str, images: dict[str, Image], small_images: dict[str, Image]
) -> None:
    # The gibibyte around the image's home has its table anyway, and that where the PCI hole begins; behind it is none.
    without = {"isolated": 0, "alias-gpa": 3}.get(scheme, 1)
    gibibytes = (images[scheme].space.options.ram_limit >> 30) - without
    assert small_images[scheme].table_bytes - images[scheme].table_bytes == gibibytes * PAGE


def test_page_size_follows_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {part.largest_page for part in PARTS.values()} == {GIB}

    def without(_part: Part, leaf: int, _subleaf: int, *, encrypted: bool) -> CpuidResult:
        assert (leaf, encrypted) == (0x80000001, True)
        return CpuidResult(0, 0, 0, 0xFFFFFFFF ^ 1 << 26)

    monkeypatch.setattr(Part, "cpuid", without)
    assert PARTS["rome"].largest_page == SMALL_PAGES


def test_four_tebibytes() -> None:
    for scheme in ("alias-gpa", "alias-window-high", "isolated"):
        image = build_helper(scheme, Options(ram_limit=4 << 40))
        mappings = other_than_start(image, leaves(image, image.space.base, 51))
        window = [mapping for mapping in mappings if mapping.va < HELPER_VA]
        hidden = sum(part.end - part.start for part in image.space.protected)
        behind = abi.MH_VMSA_BYTES if image.space.protected else 0
        assert sum(mapping.size for mapping in window) == (4 << 40) - hidden + behind
        assert max(mapping.gpa + mapping.size for mapping in window) == image.space.window + (4 << 40) + behind


def test_fixed_c_bit_equals_loaded_c_bit(scheme: str, images: dict[str, Image]) -> None:
    fixed = build_helper(scheme, Options(c_bit=47))
    base = fixed.space.base
    assert leaves(fixed, base, 47) == leaves(images[scheme], base, 47)
