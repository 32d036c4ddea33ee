"""Both loaders under a UEFI of our own: what they leave behind, with SEV and without."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest

from emulator_tests.firmware.machine import ES, GROUNDS, PLAIN, SEV, Booted, Ground, small_image
from mh_abi import abi
from mh_builder.paging import GIB, MIB, PAGE_BYTES
from mh_emulator.uefi.loaded import loaded
from mh_emulator.uefi.pool import Descriptor, MemoryType

SCHEMES = ["alias-gpa", "alias-window", "regions"]
GOOD = {
    "no SEV": PLAIN, "SEV": SEV, "SEV, 5 levels": ES._replace(kind=SEV.kind), "SEV-ES": SEV._replace(kind=ES.kind),
}  # fmt: skip
PUBLISHED = UUID(abi.MH_PUBLISHED_GUID)


@pytest.mark.parametrize("ground", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_good_boot_leaves(driver: bytes, scheme: str, ground: Ground) -> None:
    image = small_image(scheme)
    booted = Booted(image, ground, driver)
    assert booted.outcome.status == 0
    assert {name for name, _ in booted.outcome.refused} == {"ReadSection"}
    assert booted.outcome.debug == f"SEV-MH {booted.home:016x} {image.memory_bytes:016x}\n"
    assert booted.loaded() == loaded(image, booted.c_bit)

    reserved = [run for run in booted.firmware.map.used() if run.type is MemoryType.RESERVED]
    assert reserved == [Descriptor(booted.home, image.memory_bytes // PAGE_BYTES, MemoryType.RESERVED)]
    assert list(booted.firmware.services.tables) == [PUBLISHED]
    address = booted.firmware.services.tables[PUBLISHED]
    assert booted.firmware.services.pools.keys() == {address}
    assert booted.firmware.services.pools[address].kind is MemoryType.RUNTIME_SERVICES_DATA
    published = abi.mh_published(booted.firmware.memory.read(address, len(abi.mh_published)))
    assert (published.version, published.c_bit) == (abi.MH_ABI_VERSION, booted.c_bit or 0)
    assert (published.base, published.memory_bytes) == (booted.home, image.memory_bytes)
    assert bytes(published.sha256) == hashlib.sha256(image.data).digest()

    name = (UUID(abi.MH_MIGRATION_VARIABLE_GUID), abi.MH_MIGRATION_VARIABLE)
    assert booted.firmware.services.variables == {name: (2 | 4, b"\1")}
    writes = [(abi.MH_MSR_MIGRATION_CONTROL, abi.MH_MIGRATION_READY)] if scheme == "regions" else []
    assert booted.outcome.msr_writes == writes


@pytest.mark.parametrize("part", ["rome", "genoa"])
def test_another_part_has_another_c_bit(driver: bytes, part: str) -> None:
    image = small_image("alias-gpa")
    booted = Booted(image, SEV._replace(part=part), driver)
    assert booted.loaded() == loaded(image, booted.c_bit)


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("largest_page", [PAGE_BYTES, 2 * MIB, GIB])
def test_exactly_the_hand_over_page_becomes_shared(driver: bytes, largest_page: int, ground: Ground) -> None:
    """Whatever page it was part of; its neighbours stay as they were mapped, and all tables are private."""
    image = small_image("regions")
    booted = Booted(image, ground, driver, largest_page=largest_page)
    page = booted.home + image.ring_offset
    assert not booted.leaf(page).private
    start = page & -2 * MIB
    for address in range(start, start + 2 * MIB, PAGE_BYTES):
        leaf = booted.leaf(address)
        assert (leaf.gpa, leaf.private, leaf.writable, leaf.executable) == (address, address != page, True, True)
    far = booted.leaf(0x400000)
    assert (far.gpa, far.private) == (0x400000, True)
    # A page of its own is not split; a larger one by a table for each level.
    tables = [run for run in booted.firmware.map.used() if run.type is MemoryType.BOOT_SERVICES_DATA]
    assert sum(run.pages for run in tables) == {PAGE_BYTES: 0, 2 * MIB: 1, GIB: 2}[largest_page]
    for run in tables:
        assert not any(booted.memory.read_raw(run.start + run.pages * PAGE_BYTES, PAGE_BYTES))


@pytest.mark.parametrize(("largest_page", "pat"), [(2 * MIB, 1 << 12), (GIB, 1 << 12)])
def test_a_split_page_keeps_its_memory_type(driver: bytes, largest_page: int, pat: int) -> None:
    """PAT is bit 12 of a large page's entry and bit 7 of a small one's (APM volume 2, section 5.4)."""
    booted = Booted(small_image("regions"), driver=driver, largest_page=largest_page, entry_bits=pat | 1 << 4)
    for page in (booted.image.ring_offset - PAGE_BYTES, booted.image.ring_offset):
        leaf = booted.leaf(booted.home + page)
        assert (leaf.gpa, leaf.page_bytes) == (booted.home + page, PAGE_BYTES)
        assert leaf.path[-1][2] & (1 << 4 | 1 << 7) == 1 << 4 | 1 << 7


def test_the_host_finds_the_tuples_when_it_is_told(driver: bytes) -> None:
    """At the write to the MSR, not later; and nothing else of the helper in plain text."""
    image = small_image("regions")
    booted = Booted(image, driver=driver)
    handover = abi.mh_handover(booted.at_msr)
    assert (handover.magic, handover.version, handover.count) == (abi.MH_HANDOVER_MAGIC, abi.MH_ABI_VERSION, 2)
    assert [region.dumps() for region in handover.regions[:2]] == [region.dumps() for region in image.regions()]
    assert not any(booted.at_msr[len(handover) :])
    raw, plain = booted.memory.read_raw(booted.home, len(image.data)), loaded(image, booted.c_bit)
    assert not any(raw[at : at + 16] == plain[at : at + 16] for at in range(0, len(raw), 16))


def test_without_the_msr_it_is_not_written(driver: bytes) -> None:
    booted = Booted(small_image("regions"), driver=driver, kvm_features=0)
    assert booted.outcome.status == 0
    assert booted.outcome.msr_writes == []


def test_the_secret_stays(driver: bytes) -> None:
    """LAUNCH_SECRET fills its pages before the firmware starts: the loader leaves them alone."""
    image = small_image("alias-gpa")
    first = Booted(image, driver=driver)
    secret = first.home + image.descriptor.secret_offset
    first.firmware.memory.write(secret, b"\x5a" * PAGE_BYTES)
    around = [first.home + image.descriptor.secret_offset - 1, secret + PAGE_BYTES]
    for address in around:
        first.firmware.memory.write(address, b"\xff")
    first.firmware.map.free(first.home, image.memory_bytes // PAGE_BYTES)
    first.vcpu.set_registers(first.firmware.start)
    again = first.firmware.boot(first.vcpu.run)
    assert again.status == 0
    assert first.firmware.memory.read(secret, PAGE_BYTES) == b"\x5a" * PAGE_BYTES
    assert [first.firmware.memory.read(address, 1) for address in around] == [b"\0", b"\0"]
