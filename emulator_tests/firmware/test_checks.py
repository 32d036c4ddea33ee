"""Each check of each loader, and the table that says so."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator_tests.firmware.checks import Check, carrying, checks, documented, regions, row, table, verdict
from emulator_tests.firmware.loaders import LOADERS
from emulator_tests.firmware.machine import SEV
from mh_abi import abi

CHECKS = checks()


@pytest.mark.parametrize("check", CHECKS, ids=[check.what for check in CHECKS])
def test_a_loader_checks(driver: bytes, check: Check) -> None:
    verdicts = [verdict(boot(driver, ground)) for ground in check.grounds.values() for boot in check.boots]
    assert verdicts
    assert verdicts == [check.verdict] * len(verdicts)


def test_the_table_says_what_the_runs_above_do() -> None:
    assert documented() == table([row(check, [check.verdict] * len(LOADERS)) for check in CHECKS])


def test_both_loaders_take_the_same_images(drivers: list[bytes]) -> None:
    """Whatever stands in a descriptor, a tuple or a relocation."""
    descriptor = regions().descriptor
    end = descriptor.region_offset + 2 * len(abi.mh_region)
    places = st.integers(0, max(end, descriptor.relocation_offset + 64) // 4 - 1)
    words = st.sampled_from([0, 1, 2, 3, 4, 8, 0x1000, 0x8000_0000, 0xFFFF_F000, 0xFFFF_FFFF])

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(places, words | st.integers(0, 2**32 - 1))
    def check(place: int, word: int) -> None:
        data = bytearray(regions().data)
        struct.pack_into("<I", data, 4 * place, word)
        first, *others = (verdict(carrying(lambda _: bytes(data))(driver, SEV)) for driver in drivers)
        assert others == [first] * (len(drivers) - 1)

    check()
