"""What the loader leaves behind migrates a guest, on both sides."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

import pytest

from emulator_tests.firmware.machine import small_image, volume
from mh_abi import abi
from mh_builder.firmware.driver import build_loader
from mh_builder.helper import build_helper
from mh_builder.image.vmsa import hosted
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start
from mh_emulator.cpu.registers import Registers
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import Scenario, move, run
from mh_emulator.host.placement import place
from mh_emulator.host.site import Site, prepare
from mh_emulator.owner import POLICY_ES, GuestOwner, OwnerRefuses
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret
from mh_emulator.uefi.boot import Boot
from mh_emulator.uefi.firmware import Outcome, Setup

RAM_LIMIT = 5 << 30
"""The guest's upper half lies above 4 GiB."""
PAGES = 8
SECRET_ES = Secret.fresh(abi.mh_protection.MH_PROTECTION_SEV_ES, 0)


@pytest.mark.parametrize(("scheme", "part"), [("alias-gpa", "milan"), ("regions", "milan"), ("regions", "genoa")])
def test_a_guest_is_migrated_by_helpers_that_the_firmware_loaded(scheme: str, part: str) -> None:
    """On every part with as many levels of page tables as it has."""
    image = small_image(scheme, RAM_LIMIT)
    boot = Boot(build_loader(), volume(image.data), PARTS[part].levels)
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
    report = run(Scenario(scheme, PARTS[part], image, 0, contents, launch=launch, known=known))
    assert report.good
    assert report.pages > 64
    assert [outcome.debug[:7] for _, outcome in made] == ["SEV-MH "] * 2
    assert [machine.consent.allowed for machine, _ in made] == [True, scheme == "regions"]


def test_the_owner_gives_no_key_to_other_firmware() -> None:
    image = small_image("regions", RAM_LIMIT)

    launch = Boot(build_loader(), volume(image.data)).launch
    other = hashlib.sha256(Setup(build_loader(), [volume(image.data[:-1] + b"\1")], 0).flash()).digest()
    with pytest.raises(OwnerRefuses, match=r"^helper: expected SHA-256 "):
        run(Scenario("regions", PARTS["milan"], image, 0, b"guest", launch=launch, known=other))


def booted_es(scheme: str, seed: int, contents: bytes) -> Machine:
    """A launched SEV-ES guest whose firmware has loaded its helper, with the contents in its lowest pages of RAM."""
    part = PARTS["genoa"]
    built = build_helper(scheme, Options(ram_limit=RAM_LIMIT, start=Start.ES))
    image = hosted(built, part.c_bit)
    site = prepare(Platform(part, 64 << 20, seed), place(PAGES * PAGE_BYTES, image), image)
    flash = Setup(build_loader(), [volume(image.data)], 0).flash()
    owner = GuestOwner(POLICY_ES, helper=hashlib.sha256(flash).digest())
    machine, outcome = Boot(build_loader(), volume(image.data), 5).booted(site, owner, [(0, contents)], SECRET_ES)
    assert outcome.status == 0
    return machine


@pytest.mark.parametrize("scheme", ["alias-gpa", "regions"])
def test_helpers_in_sev_es_guests_begin_with_what_the_owner_measured(scheme: str) -> None:
    """Their VMSAs were launched before the firmware put the image there: they fit what it has put."""
    contents = random.Random(2).randbytes(PAGES * PAGE_BYTES)
    source, target = booted_es(scheme, 1, contents), booted_es(scheme, 2, bytes(len(contents)))
    pages = [PAGE_BYTES * number for number in range(PAGES)]
    assert move(source, target, pages)[0] == PAGES
    assert b"".join(target.read_guest(page) for page in pages) == contents


def test_a_firmware_starts_no_program_in_an_sev_es_guest() -> None:
    """It would need the vCPU's registers, which no host sets."""
    image = hosted(build_helper("regions", Options(ram_limit=RAM_LIMIT, start=Start.ES)), PARTS["genoa"].c_bit)
    site = prepare(Platform(PARTS["genoa"], 64 << 20, 1), place(PAGE_BYTES, image), image)
    with pytest.raises(ValueError, match=r"^under SEV-ES this firmware starts no program$"):
        Boot(build_loader(), volume(image.data)).launch(
            site, GuestOwner(POLICY_ES), [], SECRET_ES, Registers.long_mode(0, 0, 0)
        )
