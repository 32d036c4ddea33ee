"""Images, CPUs and hosts that are unusual and not wrong, or wrong in ways that others hide."""

from __future__ import annotations

from functools import partial

import pytest

from emulator_tests.firmware.liars import KVM_LEAF, LAST_INTERFACE, SECOND_INTERFACE, answering, shows_others_first
from emulator_tests.firmware.machine import SEV, Booted, small_image, volume
from emulator_tests.firmware.wrong import constant, more, moved, with_field, with_relocation
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_emulator.uefi.loaded import loaded

LOAD_ERROR = 1 << 63 | 1
STEP = abi.mh_load_step


@pytest.mark.parametrize("scheme", ["alias-gpa", "regions"])
def test_an_image_that_is_fixed_to_this_parts_c_bit(driver: bytes, scheme: str) -> None:
    options = Options(ram_limit=1 << 30, c_bit=PARTS["milan"].c_bit)
    image = parse_image(build_helper(scheme, options).data)
    booted = Booted(image, SEV, driver)
    assert booted.outcome.debug == f"SEV-MH {booted.home:016x} {image.memory_bytes:016x}\n"
    assert booted.loaded() == loaded(image, booted.c_bit)


def test_a_helper_that_begins_in_the_lower_half(driver: bytes) -> None:
    image = small_image("regions")
    low = parse_image(with_field(image.data, "entry64", constant((1 << 47) - PAGE_BYTES)))
    assert Booted(low, SEV, driver).outcome.status == 0


def test_a_relocation_of_no_words(driver: bytes) -> None:
    image = small_image("regions")
    record = partial(with_relocation, image.data, offset=constant(abi.MH_PAGE_BYTES), kinds=abi.MH_RELOCATE_BASE)
    booted = Booted(parse_image(record(count=0)), SEV, driver)
    assert booted.outcome.status == 0
    assert booted.loaded() == loaded(parse_image(record(count=0)), booted.c_bit)


@pytest.mark.parametrize(
    "data",
    [
        with_field(
            moved(small_image("regions").data, PAGE_BYTES), "flags", lambda it: it.flags | abi.MH_FLAG_FIXED_BASE
        ),
        with_field(small_image("regions").data, "link_base", more("link_base", 1 << 51)),
        small_image("regions").data + bytes(60),
        small_image("regions").data + bytes(PAGE_BYTES),
    ],
    ids=["fixed-and-moved", "above-the-c-bit", "sixty-bytes-more", "a-page-more"],
)
def test_what_makes_no_sense(driver: bytes, data: bytes) -> None:
    """Also of a length whose SHA-256 takes a block more."""
    booted = Booted(small_image("regions"), SEV, driver, volumes=[volume(data)])
    booted.check_failed(STEP.MH_LOAD_DESCRIPTOR, LOAD_ERROR)


@pytest.mark.parametrize("register", ["ebx", "ecx", "edx"])
def test_a_hypervisor_whose_name_is_partly_that_of_kvm(driver: bytes, register: str) -> None:
    other = answering(KVM_LEAF, lambda result: result._replace(**{register: getattr(result, register) ^ 1}))
    booted = Booted(small_image("regions"), SEV, driver, vm_type=other)
    assert booted.outcome.status == 0
    assert booted.outcome.msr_writes == []


@pytest.mark.parametrize("distance", [LAST_INTERFACE, LAST_INTERFACE + SECOND_INTERFACE], ids=["last", "too-far"])
def test_how_far_behind_others_kvm_is_looked_for(driver: bytes, distance: int) -> None:
    booted = Booted(small_image("regions"), SEV, driver, vm_type=shows_others_first(distance))
    assert booted.outcome.status == 0
    assert len(booted.outcome.msr_writes) == (distance == LAST_INTERFACE)


def test_a_table_of_snp_in_a_guest_without_it(driver: bytes) -> None:
    """It means nothing there, though it speaks of an SVSM."""
    assert Booted(small_image("regions"), SEV, driver, svsm_bytes=1 << 23).outcome.status == 0
