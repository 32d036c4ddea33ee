"""What the loader leaves behind migrates a guest, on both sides."""

from __future__ import annotations

import hashlib
import random

import pytest

from emulator_tests.firmware.machine import small_image, volume
from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.firmware.driver import build_loader
from mh_builder.parts import PARTS
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import Scenario, run
from mh_emulator.host.placement import Placement
from mh_emulator.owner import OwnerRefuses
from mh_emulator.platform import Platform
from mh_emulator.uefi.firmware import Setup
from mh_emulator.uefi.machine import FirmwareMachine


@pytest.mark.parametrize("scheme", ["alias-gpa", "regions"])
def test_a_guest_is_migrated_by_helpers_that_the_firmware_loaded(scheme: str) -> None:
    # The guest's upper half lies above 4 GiB.
    image = small_image(scheme, 5 << 30)
    made: list[FirmwareMachine] = []

    def machine(platform: Platform, placement: Placement, helper: HelperImage) -> Machine:
        made.append(FirmwareMachine(platform, placement, helper, build_loader(), volume(image.data)))
        return made[-1]

    contents = random.Random(1).randbytes(64 * abi.MH_PAGE_BYTES)
    known = hashlib.sha256(Setup(build_loader(), [volume(image.data)], 0).flash()).digest()
    report = run(Scenario(scheme, PARTS["milan"], image, 0, contents, machine, known))
    assert report.good
    assert report.pages > 64
    assert [side.outcome.debug[:7] for side in made] == ["SEV-MH "] * 2
    assert [side.consent.allowed for side in made] == [True, scheme == "regions"]


def test_the_owner_gives_no_key_to_other_firmware() -> None:
    image = small_image("regions", 5 << 30)

    def machine(platform: Platform, placement: Placement, helper: HelperImage) -> Machine:
        return FirmwareMachine(platform, placement, helper, build_loader(), volume(image.data))

    other = hashlib.sha256(Setup(build_loader(), [volume(image.data[:-1] + b"\1")], 0).flash()).digest()
    with pytest.raises(OwnerRefuses, match=r"^helper: expected SHA-256 "):
        run(Scenario("regions", PARTS["milan"], image, 0, b"guest", machine, other))
