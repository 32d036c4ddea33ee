"""The hand-over of `regions`: code in the guest says where the helper lies, and the host believes nothing of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from emulator_tests.helper.conftest import DRAM_BYTES, PAGES, SECRET
from emulator_tests.helper.test_migrate import loaded, scenario
from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import MIRROR_STARTS, Start
from mh_emulator.guest.worker import Worker
from mh_emulator.host import handover
from mh_emulator.host.handover import HandoverError, Region
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import run
from mh_emulator.host.placement import place
from mh_emulator.host.ring import HelperStopped
from mh_emulator.host.site import prepare
from mh_emulator.host.view import MirrorSlot
from mh_emulator.kvm.exits import Reason
from mh_emulator.owner import POLICY, POLICY_ES, GuestOwner, OwnerRefuses
from mh_emulator.platform import Platform

G = 1 << 30


def started(image: Image, hand_over: Callable[[Worker], Worker] = lambda worker: worker) -> Machine:
    """A guest that has allowed its migration."""
    helper = loaded(image)
    placement = place(PAGES * PAGE_BYTES, helper)
    site = prepare(Platform(PARTS["milan"], DRAM_BYTES, 1), placement, helper)
    worker = hand_over(placement.worker(1, helper, site.base))
    c_mask = 1 << PARTS["milan"].c_bit
    owner = GuestOwner(POLICY_ES if site.es else POLICY)
    machine = launch(site, owner, worker.contents(c_mask), SECRET, worker.start(c_mask))
    assert machine.run_guest().reason is Reason.MSR
    return machine


@pytest.mark.parametrize("start", MIRROR_STARTS)
def test_the_slots_are_what_code_in_the_guest_said(
    images: dict[str, Image], es_images: dict[str, Image], start: Start
) -> None:
    image = (es_images if start is Start.ES else images)["regions"]
    machine = started(image)
    assert machine.consent.allowed
    assert machine.regions == handover.image_regions(machine.helper, machine.base)
    carrier = machine.helper_offset + machine.helper.ring_offset
    # What the host read is what the guest wrote through its shared view, in both kinds of guest.
    assert machine.memory.read_raw(carrier, len(abi.mh_handover)) == handover.write(machine.regions)
    assert carrier in machine.consent.shared
    machine.start_helper()
    assert machine.memory.read_raw(carrier, 8) == abi.MH_RING_MAGIC.to_bytes(8, "little")


@pytest.mark.parametrize("scheme", ["alias-gpa", "alias-window", "isolated"])
def test_other_schemes_need_none(images: dict[str, Image], scheme: str) -> None:
    machine = started(images[scheme])
    assert machine.consent.allowed
    assert len(machine.consent.shared) == 1


def test_only_the_first_permission_hands_over(images: dict[str, Image]) -> None:
    """The page is the ring's afterwards: what is in it then is no hand-over any more."""
    machine = started(images["regions"])
    before = machine.regions
    machine.start_helper()
    machine.consent._write_control(machine.vcpu, 0)
    assert not machine.consent.allowed
    machine.consent._write_control(machine.vcpu, 1)
    assert machine.consent.allowed
    assert machine.regions == before


def test_a_guest_that_shares_no_page_hands_over_ciphertext(images: dict[str, Image]) -> None:
    def privately(worker: Worker) -> Worker:
        original = worker.contents

        def contents(c_mask: int) -> list[tuple[int, bytes]]:
            parts = original(c_mask)
            entry = worker.carrier | 0x63 | 1 << 63
            tables = parts[2][1]
            changed = tables.replace(entry.to_bytes(8, "little"), (entry | c_mask).to_bytes(8, "little"))
            assert changed != tables
            return [*parts[:2], (parts[2][0], changed)]

        object.__setattr__(worker, "contents", contents)
        return worker

    with pytest.raises(HandoverError, match=r"^hand-over starts with 0x[0-9a-f]+, not 0x5245564f444e4148$"):
        started(images["regions"], privately)


def test_a_refusal_ends_the_migration(images: dict[str, Image], monkeypatch: pytest.MonkeyPatch) -> None:
    original = handover.image_regions

    def moved(helper: HelperImage, base: int) -> tuple[Region, ...]:
        return tuple(region._replace(mirror_gpa=0) for region in original(helper, base))

    monkeypatch.setattr(handover, "image_regions", moved)
    with pytest.raises(HandoverError, match=r"tuple 0: mirror GPA 0x0 to 0x[0-9a-f]+ falls inside the ram_addr range"):
        run(scenario(images["regions"]))


# ---- what is refused ----


@pytest.fixture(scope="module")
def held(images: dict[str, Image]) -> tuple[handover.Limits, tuple[Region, ...]]:
    """The limits of a host, and tuples that it takes: the image's own, cut in two."""
    machine = started(images["regions"])
    whole, *_ = machine.regions
    cut = whole.length // 2 & -PAGE_BYTES
    first = whole._replace(length=cut)
    second = Region(whole.main_gpa + cut, whole.length - cut, whole.mirror_gpa + cut, whole.kind)
    return machine.limits(), (first, second)


Held = tuple[handover.Limits, tuple[Region, ...]]


def test_tuples_that_are_taken(held: Held) -> None:
    known, regions = held
    assert handover.read(handover.write(regions), known) == regions


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"length": 0}, r"tuple 0: length 0x0 at main GPA 0x4000000"),
        ({"kind": 2}, r"tuple 0: kind 0x2 is not 0x0 or 0x1"),
        ({"main_gpa": 0x4000008}, r"tuple 0: main GPA 0x4000008 or length 0x[0-9a-f]+ is not of whole pages"),
        ({"mirror_gpa": 64 * G + 8}, r"tuple 0: mirror GPA 0x1000000008 or length 0x[0-9a-f]+ is not of whole pages"),
        ({"length": 0x1001}, r"tuple 0: main GPA 0x4000000 or length 0x1001 is not of whole pages"),
        (
            {"main_gpa": (1 << 64) - 0x1000},
            r"tuple 0: main GPA 0xfffffffffffff000 with length 0x[0-9a-f]+ wraps around",
        ),
        ({"mirror_gpa": (1 << 64) - 0x1000}, r"tuple 0: mirror GPA 0xfffffffffffff000 with length 0x[0-9a-f]+ wraps"),
        (
            {"main_gpa": 3 * G},
            r"tuple 0: main GPA 0xc0000000 to 0x[0-9a-f]+ leaves RAM, 0x0 to 0x[0-9a-f]+, 0x100000000",
        ),
        ({"length": 1 * G}, r"tuple 0: main GPA 0x4000000 to 0x44000000 leaves RAM"),
        (
            {"mirror_gpa": 0},
            r"tuple 0: mirror GPA 0x0 to 0x[0-9a-f]+ falls inside the ram_addr range 0x0 to 0x1000000000",
        ),
        ({"mirror_gpa": 64 * G - 0x1000}, r"tuple 0: mirror GPA 0xffffff000 to 0x[0-9a-f]+ falls inside the ram_addr"),
        (
            {"mirror_gpa": (1 << 48) - 0x1000},
            r"tuple 0: mirror GPA 0x[0-9a-f]+ to 0x[0-9a-f]+ exceeds 48 physical addr",
        ),
    ],
)
def test_each_wrong_tuple_is_one_line(held: Held, changes: dict[str, int], line: str) -> None:
    known, (first, second) = held
    with pytest.raises(HandoverError, match=rf"^hand-over {line}") as refused:
        handover.read(handover.write((first._replace(**changes), second)), known)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("field", "space"), [("main_gpa", "main"), ("mirror_gpa", "mirror")])
def test_tuples_that_overlap(held: Held, field: str, space: str) -> None:
    known, (first, second) = held
    both = (first, second._replace(**{field: getattr(first, field) + PAGE_BYTES}))
    start = getattr(first, field)
    with pytest.raises(
        HandoverError, match=rf"^hand-over tuples 0 and 1: {space} GPA {start:#x} to 0x[0-9a-f]+ overlaps"
    ):
        handover.read(handover.write(both), known)


@pytest.mark.parametrize(
    ("offset", "value", "line"),
    [
        (0, 1, "starts with 0x.*, not 0x5245564f444e4148"),
        (8, 99, "has version 0x63, not 0x"),
        (12, 0, "has 0x0 tuples, not 0x1 to 0x8"),
        (12, 9, "has 0x9 tuples, not 0x1 to 0x8"),
    ],
)
def test_wrong_heads(held: Held, offset: int, value: int, line: str) -> None:
    known, regions = held
    data = bytearray(handover.write(regions))
    data[offset : offset + 4] = value.to_bytes(4, "little")
    with pytest.raises(HandoverError, match=f"^hand-over {line}"):
        handover.read(bytes(data), known)


def test_eight_tuples_fit_and_the_rest_of_the_page_means_nothing(held: Held) -> None:
    known, (first, _) = held
    regions = tuple(
        Region(first.main_gpa + n * PAGE_BYTES, PAGE_BYTES, first.mirror_gpa + n * PAGE_BYTES, n % 2) for n in range(8)
    )
    data = handover.write(regions)
    assert len(data) == len(abi.mh_handover)
    assert handover.read(data + b"\xff" * 64, known) == regions


# ---- a host that maps other memory than the tuples say ----


def with_regions(images: dict[str, Image], change: Callable[[Region], Region]) -> Machine:
    machine = started(images["regions"])
    machine.regions = tuple(map(change, machine.regions))
    return machine


def test_other_code_does_not_come_up(images: dict[str, Image]) -> None:
    """Any other page decrypts to something that is not the helper's code or tables."""
    machine = with_regions(images, lambda region: region._replace(main_gpa=region.main_gpa - 16 * PAGE_BYTES))
    with pytest.raises((HelperStopped, AssertionError)):
        machine.start_helper()


def test_plaintext_of_the_hosts_own_does_not_come_up(images: dict[str, Image]) -> None:
    """A host that puts its own code where the tuples point: under the guest's key that is garbage."""
    machine = started(images["regions"])
    whole = machine.helper.relocated(machine.base, PARTS["milan"].c_bit)
    machine.memory.write_raw(machine.helper_offset, whole)
    with pytest.raises((HelperStopped, AssertionError)):
        machine.start_helper()


def test_a_helper_that_the_owner_did_not_expect_gets_no_key(images: dict[str, Image]) -> None:
    """So does one that a host launches under the key in place of the right one: it is in the digest."""
    machine = started(images["regions"])
    expected = machine.helper.relocated(machine.base, PARTS["milan"].c_bit).ljust(machine.helper.ring_offset, b"\0")
    changed = bytearray(machine.helper.data)
    changed[-1] ^= 1
    other = prepare(
        Platform(PARTS["milan"], DRAM_BYTES, 1), machine.placement, replace(machine.helper, data=bytes(changed))
    )
    with pytest.raises(OwnerRefuses, match="helper"):
        launch(other, GuestOwner(POLICY, helper=hashlib.sha256(expected).digest()), (), SECRET)


def test_ram_mapped_elsewhere_goes_unnoticed(images: dict[str, Image], monkeypatch: pytest.MonkeyPatch) -> None:
    """SEV has no integrity of the nested tables: two pages of RAM change places, every packet is authentic, and the
    target's guest gets each as the other. docs/security.md says so."""
    original = Machine.mirror_slots
    first: list[Machine] = []

    def exchanged(machine: Machine) -> list[MirrorSlot]:
        ram, *rest = original(machine)
        first.append(machine)
        if machine is not first[0]:
            return [ram, *rest]
        a, b, *_ = machine.guest_pages()
        assert (a, b) == (0, PAGE_BYTES)
        behind = replace(ram, gpa=ram.gpa + 2 * PAGE_BYTES, size=ram.size - 2 * PAGE_BYTES, offset=2 * PAGE_BYTES)
        pages = [replace(ram, gpa=ram.gpa + to, size=PAGE_BYTES, offset=of) for to, of in ((a, b), (b, a))]
        return [*pages, behind, *rest]

    monkeypatch.setattr(Machine, "mirror_slots", exchanged)
    report = run(scenario(images["regions"]))
    assert report.pages > 24
    assert not report.equal
    assert not report.guest_ok
