"""Whole migrations: every scheme, every part, moved bases, odd RAM, and that the proof can fail."""

from __future__ import annotations

import random

import pytest

from emulator_tests.helper.conftest import PAGES, launched
from mh_abi.image import HelperImage, ImageError, parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import hosted
from mh_builder.paging import GIB, MIB, PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import MIRROR_STARTS, Options, Start
from mh_emulator.guest.worker import WORKER_BYTES, Piece, Worker, expected
from mh_emulator.host import migration
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import Scenario, run
from mh_emulator.host.placement import PlacementError, place
from mh_emulator.host.topology import FOUR_GIB


def scenario(image: Image, part: str = "milan", size: int = 24 * PAGE_BYTES) -> Scenario:
    contents = random.Random(size).randbytes(size)
    return Scenario(image.space.name, PARTS[part], loaded(image, part), image.table_bytes, contents)


def loaded(image: Image, part: str = "milan", base: int | None = None) -> HelperImage:
    """The image as a host gets it: one for SEV-ES with its VMSA."""
    return hosted(image, PARTS[part].c_bit, base)


@pytest.mark.parametrize("start", MIRROR_STARTS)
@pytest.mark.parametrize("part", sorted(PARTS))
def test_every_scheme_on_every_part(
    images: dict[str, Image], es_images: dict[str, Image], scheme: str, part: str, start: Start
) -> None:
    report = run(scenario((es_images if start is Start.ES else images)[scheme], part))
    assert report.good
    assert (report.start, report.shared_pages) == (start.value, 1)
    assert report.equal
    assert report.guest_ok
    # The contents, and the guest's own pages: information, code, tables.
    assert report.pages > 24
    assert (report.source_plain_pages, report.target_plain_pages, report.naive_equal_pages) == (0, 0, 0)
    assert report.exits_per_page < 1


def test_high_window_of_a_wide_part() -> None:
    image = build_helper("alias-window-high", Options.for_part(PARTS["genoa"]))
    assert image.space.window == 1 << 45
    assert run(scenario(image, "genoa")).good


@pytest.mark.parametrize("c_bit", [47, 51])
def test_fixed_c_bit(scheme: str, c_bit: int) -> None:
    image = build_helper(scheme, Options(c_bit=c_bit))
    fits, other = ("rome", "milan") if c_bit == 47 else ("milan", "rome")
    assert run(scenario(image, fits)).good
    with pytest.raises(ImageError, match=rf"^image is fixed to C-bit {c_bit}, the part has {PARTS[other].c_bit}$"):
        run(scenario(image, other))


@pytest.mark.parametrize("ram_limit", [GIB, 512 * GIB, 1024 * GIB, 4096 * GIB], ids=hex)
def test_ram_limits(ram_limit: int) -> None:
    assert run(scenario(build_helper("regions", Options(ram_limit=ram_limit)))).good


def test_part_without_1_gib_pages(scheme: str) -> None:
    image = build_helper(scheme, Options(ram_limit=8 * GIB, largest_page=2 * MIB))
    assert run(scenario(image)).good


@pytest.mark.parametrize("home", [0x200000, 0x823000, 0x7F000000], ids=hex)
@pytest.mark.parametrize("resident", ["alias-gpa", "alias-window", "regions"])
def test_other_homes(resident: str, home: int) -> None:
    assert run(scenario(build_helper(resident, Options(home=home)), size=600 * PAGE_BYTES)).good


@pytest.mark.parametrize("size", [1, 4095, 4097, 3 * PAGE_BYTES], ids=hex)
def test_ram_of_any_size(images: dict[str, Image], size: int) -> None:
    report = run(scenario(images["regions"], size=size))
    assert report.good
    assert report.ram_bytes == size


def test_contents_lie_below_and_above_the_hole(images: dict[str, Image]) -> None:
    for image in images.values():
        placement = place(100 * PAGE_BYTES, parse_image(image.data))
        assert sum(part.size for part in placement.contents) == 100 * PAGE_BYTES
        above = [part for part in placement.contents if part.gpa >= FOUR_GIB]
        assert sum(part.size for part in above) == 50 * PAGE_BYTES
        assert all(placement.topology.ram_addr(part.gpa) != part.gpa for part in above)


def test_contents_are_placed_around_the_helper(images: dict[str, Image]) -> None:
    helper = parse_image(images["regions"].data)
    assert helper.home is not None
    placement = place(256 << 20, helper)
    reserved = range(helper.home, helper.home + helper.memory_bytes)
    assert len(placement.contents) == 3
    for part in placement.contents:
        assert part.gpa >= reserved.stop or part.gpa + part.size <= reserved.start
    assert placement.contents[2].gpa == FOUR_GIB + WORKER_BYTES


def test_ram_beyond_the_map() -> None:
    small = Options(ram_limit=128 << 20)
    for scheme, what in (("regions", "ram_addr"), ("isolated", "ram_addr"), ("alias-gpa", "GPA")):
        helper = parse_image(build_helper(scheme, small).data)
        with pytest.raises(
            PlacementError, match=rf"^RAM ends at {what} 0x[0-9a-f]+, the image maps addresses below 0x8000000$"
        ):
            place(200 << 20, helper)


@pytest.mark.parametrize("scheme", ["alias-window", "alias-window-high", "regions", "isolated"])
def test_ram_without_a_gpa_moves_too(images: dict[str, Image], scheme: str) -> None:
    """What the guest wrote before its RAM was unplugged is still there, encrypted, and has a `ram_addr`."""
    helper = parse_image(images[scheme].data)
    source, target = (launched(helper, PARTS["milan"], seed, b"", unplugged=2 * PAGE_BYTES) for seed in (1, 2))
    place_of = source.memory.size - PAGE_BYTES
    assert source.vm.spa(source.placement.topology.gpa_end) is None
    with pytest.raises(ValueError, match="has no GPA"):
        source.placement.topology.gpa(place_of)
    source.platform.dram.write_private(source.asid, source.memory.spa(place_of), b"unplugged" * 400)
    moved, _ = migration.move(source, target, [place_of])
    assert moved == 1
    assert target.read_guest(place_of)[:3600] == b"unplugged" * 400


def test_the_lowest_and_the_highest_page_move(scheme: str) -> None:
    """Request address 0, which is no virtual address 0, and the last one that the image maps."""
    by_gpa = scheme == "alias-gpa"
    limit = FOUR_GIB + WORKER_BYTES + PAGES // 2 * PAGE_BYTES if by_gpa else 128 * MIB
    helper = parse_image(build_helper(scheme, Options(ram_limit=limit)).data)
    unplugged = 0 if by_gpa else limit - place(PAGES * PAGE_BYTES, helper).topology.ram_bytes
    source, target = (launched(helper, PARTS["milan"], seed, b"", unplugged=unplugged) for seed in (1, 2))
    pages = [0, source.memory.size - PAGE_BYTES]
    assert [source.request_address(page) for page in pages] == [0, limit - PAGE_BYTES]
    for page in pages:
        source.platform.dram.write_private(source.asid, source.memory.spa(page), contents_at(page))
    moved, _ = migration.move(source, target, pages)
    assert moved == len(pages)
    assert [target.read_guest(page) for page in pages] == [contents_at(page) for page in pages]


def contents_at(page: int) -> bytes:
    return random.Random(page).randbytes(PAGE_BYTES)


# ---- the proof can fail ----


def test_a_lost_page_is_noticed(images: dict[str, Image], monkeypatch: pytest.MonkeyPatch) -> None:
    """The host delivers stale RAM for one page after the comparison of what was moved."""
    original = migration.move

    def move_and_spoil(source: Machine, target: Machine, pages: list[int], chunk: int) -> tuple[int, int]:
        result = original(source, target, pages, chunk)
        target.memory.write_raw(pages[0], bytes(PAGE_BYTES))
        return result

    monkeypatch.setattr(migration, "move", move_and_spoil)
    report = run(scenario(images["regions"]))
    assert not report.equal
    assert not report.guest_ok
    assert not report.good


def test_a_guest_that_does_not_allow_it_is_not_moved(images: dict[str, Image], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "start", Worker.landing)
    with pytest.raises(migration.MigrationError, match="^the guest has not allowed its migration: it left with "):
        run(scenario(images["regions"]))


def test_the_reference_depends_on_every_page() -> None:
    contents = random.Random(5).randbytes(5 * PAGE_BYTES)
    right, changed = expected(contents, 2)
    assert 2 <= len(changed) <= 3
    for start in range(0, len(contents), PAGE_BYTES):
        other = contents[:start] + bytes(PAGE_BYTES) + contents[start + PAGE_BYTES :]
        assert expected(other, 2)[0] != right


def test_worker_needs_its_pieces_to_fit() -> None:
    worker = Worker(FOUR_GIB, tuple(Piece(n << 21, PAGE_BYTES) for n in range(300)), 1)
    with pytest.raises(AssertionError, match="^300 pieces"):
        worker.contents(0)
