"""What goes wrong for a loader, beyond what test_checks.py has: nothing is left behind, and nothing else is changed."""

from __future__ import annotations

from collections import Counter

import pytest

from emulator_tests.firmware import wrong
from emulator_tests.firmware.checks import DEVICE_ERROR
from emulator_tests.firmware.liars import HasNoEncryptionLeaf, HidesSev, SaysInactive
from emulator_tests.firmware.machine import Booted, small_image
from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.paging import GIB, PAGE_BYTES
from mh_emulator.kvm.vm import Vm
from mh_emulator.uefi.loaded import loaded

STEP = abi.mh_load_step

CALLS = [
    ("LocateHandleBuffer", 0, STEP.MH_LOAD_FIND),
    *(("HandleProtocol", number, STEP.MH_LOAD_FIND) for number in range(2)),
    *(("ReadSection", number, STEP.MH_LOAD_FIND) for number in range(3)),
    ("AllocatePages", 0, STEP.MH_LOAD_RESERVE),
    ("AllocatePool", 0, STEP.MH_LOAD_PUBLISH),
    ("InstallConfigurationTable", 0, STEP.MH_LOAD_PUBLISH),
    ("SetVariable", 0, STEP.MH_LOAD_VARIABLE),
    ("AllocatePages", 1, STEP.MH_LOAD_HANDOVER),
]


@pytest.fixture(scope="module")
def image() -> HelperImage:
    return small_image("regions")


def test_every_call_is_among_those_that_fail_below(driver: bytes, image: HelperImage) -> None:
    """But for what gives memory back."""
    calls = Counter(Booted(image, driver=driver).outcome.calls)
    harmless = {("FreePool", number) for number in range(3)}
    failing = {(name, number) for name, number, _ in CALLS}
    assert failing | harmless == {(name, number) for name, count in calls.items() for number in range(count)}


@pytest.mark.parametrize(("name", "number", "step"), CALLS)
def test_a_service_fails(driver: bytes, image: HelperImage, name: str, number: int, step: int) -> None:
    booted = Booted(image, driver=driver, failures={(name, number): DEVICE_ERROR})
    booted.check_failed(step, DEVICE_ERROR)
    assert booted.leaf(booted.home + image.ring_offset).private
    if step > STEP.MH_LOAD_RESERVE:
        assert not any(booted.firmware.memory.read(booted.home, len(image.data)))


def test_no_memory_for_two_tables(driver: bytes, image: HelperImage) -> None:
    """The 1 GiB page stays whole."""
    booted = Booted(image, driver=driver, largest_page=GIB, failures={("AllocatePages", 1): DEVICE_ERROR})
    booted.check_failed(STEP.MH_LOAD_HANDOVER, DEVICE_ERROR)
    assert booted.leaf(booted.home).page_bytes == GIB


def test_its_neighbours_may_be_taken(driver: bytes, image: HelperImage) -> None:
    assert Booted(image, driver=driver, taken=(image.home or 0) + image.memory_bytes).outcome.status == 0
    assert Booted(image, driver=driver, taken=(image.home or 0) - PAGE_BYTES).outcome.status == 0


def test_another_mirror_address_is_relocated(driver: bytes, image: HelperImage) -> None:
    """Where the first tuple says that the mirror sees it."""
    other = HelperImage(wrong.moved(image.data, 0x123000), image.descriptor)
    booted = Booted(other, driver=driver)
    assert booted.outcome.status == 0
    assert booted.loaded() == loaded(other, booted.c_bit)
    assert booted.loaded()[:0x10000] != loaded(image, booted.c_bit)[:0x10000]


@pytest.mark.parametrize("liar", [HidesSev, HasNoEncryptionLeaf, SaysInactive])
def test_a_host_that_hides_sev_gets_a_helper_without_c_bits(driver: bytes, image: HelperImage, liar: type[Vm]) -> None:
    """It sees no plain text by that: the helper's pages are private, and its own tables reach ciphertext only."""
    booted = Booted(image, driver=driver, vm_type=liar)
    assert booted.outcome.status == 0
    private = booted.firmware.memory.read(booted.home, len(image.data))
    assert private == loaded(image, None)[: len(image.data)]
    raw = booted.memory.read_raw(booted.home, len(image.data))
    assert not any(raw[at : at + 16] == private[at : at + 16] for at in range(0, len(raw), 16))
