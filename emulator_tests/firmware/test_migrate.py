"""What the loader leaves behind migrates a guest, on both sides."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

import pytest

from emulator_tests.firmware.machine import small_image, volume
from mh_abi import abi
from mh_builder.firmware.driver import build_loader
from mh_builder.parts import PARTS
from mh_emulator.cpu.registers import Registers
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import Scenario, run
from mh_emulator.host.site import Site
from mh_emulator.owner import GuestOwner, OwnerRefuses
from mh_emulator.secret import Secret
from mh_emulator.uefi.boot import Boot
from mh_emulator.uefi.firmware import Outcome, Setup


@pytest.mark.parametrize("scheme", ["alias-gpa", "regions"])
def test_a_guest_is_migrated_by_helpers_that_the_firmware_loaded(scheme: str) -> None:
    # The guest's upper half lies above 4 GiB.
    image = small_image(scheme, 5 << 30)
    boot = Boot(build_loader(), volume(image.data))
    made: list[tuple[Machine, Outcome]] = []

    def launch(
        site: Site,
        owner: GuestOwner,
        contents: Iterable[tuple[int, bytes]],
        secret: Secret,
        registers: Registers | None,
    ) -> Machine:
        made.append(boot.booted(site, owner, contents, secret, registers))
        return made[-1][0]

    contents = random.Random(1).randbytes(64 * abi.MH_PAGE_BYTES)
    known = hashlib.sha256(Setup(build_loader(), [volume(image.data)], 0).flash()).digest()
    report = run(Scenario(scheme, PARTS["milan"], image, 0, contents, launch=launch, known=known))
    assert report.good
    assert report.pages > 64
    assert [outcome.debug[:7] for _, outcome in made] == ["SEV-MH "] * 2
    assert [machine.consent.allowed for machine, _ in made] == [True, scheme == "regions"]


def test_the_owner_gives_no_key_to_other_firmware() -> None:
    image = small_image("regions", 5 << 30)

    launch = Boot(build_loader(), volume(image.data)).launch
    other = hashlib.sha256(Setup(build_loader(), [volume(image.data[:-1] + b"\1")], 0).flash()).digest()
    with pytest.raises(OwnerRefuses, match=r"^helper: expected SHA-256 "):
        run(Scenario("regions", PARTS["milan"], image, 0, b"guest", launch=launch, known=other))
