"""What each check sees that no other does: images on either side of it."""

from __future__ import annotations

import pytest

from emulator_tests.firmware.edges import EDGES, Edge
from emulator_tests.firmware.machine import SEV, Booted, small_image, volume
from mh_abi import abi
from mh_abi.image import parse_image

LOAD_ERROR = 1 << 63 | 1


@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)
def test_one_side_loads_and_the_other_does_not(driver: bytes, edge: Edge) -> None:
    data = small_image(edge.scheme).data
    sound = parse_image(edge.sound(data))
    booted = Booted(sound, SEV, driver)
    assert booted.outcome.debug == f"SEV-MH {booted.home:016x} {sound.memory_bytes:016x}\n"
    wrong = Booted(sound, SEV, driver, [volume(edge.wrong(data))])
    wrong.check_failed(abi.mh_load_step.MH_LOAD_DESCRIPTOR, LOAD_ERROR)
