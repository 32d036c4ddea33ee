"""Sessions between helpers of different builds: versions, layouts and schemes; and which of them never come about."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from emulator_tests.helper.conftest import DRAM_BYTES, PAGES, SECRET, Op, Status, boot_contents, contents_of, is_over
from emulator_tests.helper.oracle import overheard
from emulator_tests.helper.test_handover import started
from mh_abi import abi
from mh_abi.image import HelperImage, parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import MIB
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.ring import HelperRefused
from mh_emulator.host.session import Batch, begin, connect_all, end_epoch, export_batch, finish, greet, import_batch
from mh_emulator.host.side import Side
from mh_emulator.host.site import prepare
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.peer import SessionKeys
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

PAGE = abi.MH_PAGE_BYTES
Role = abi.mh_role
RAM_LIMIT = 1 << 30


@cache
def built(scheme: str = "regions", **options: Any) -> Image:
    return build_helper(scheme, Options(**({"ram_limit": RAM_LIMIT} | options)))


def common_placement(*helpers: HelperImage) -> Placement:
    """One guest for them all: its RAM has room for each."""
    placements = [place(PAGES * PAGE, helper) for helper in helpers]
    assert len({placement.contents for placement in placements}) == 1
    topologies = [placement.topology for placement in placements]
    below, above = max(each.below for each in topologies), max(each.above for each in topologies)
    return replace(placements[0], topology=replace(topologies[0], below=below, above=above))


class Two:
    """Source and target with their helpers, each of its own build."""

    def __init__(self, source: Image, target: Image, secrets: tuple[Secret, Secret] = (SECRET, SECRET)) -> None:
        self.images = source, target
        self.contents = contents_of(PAGES)
        helpers = parse_image(source.data), parse_image(target.data)
        placement = common_placement(*helpers)
        sites = [
            prepare(Platform(PARTS["milan"], DRAM_BYTES, seed), placement, helper)
            for seed, helper in enumerate(helpers)
        ]
        self.source = launch(sites[0], GuestOwner(POLICY), boot_contents(placement, self.contents), secrets[0])
        self.target = launch(sites[1], GuestOwner(POLICY), (), secrets[1])
        for machine in (self.source, self.target):
            machine.start_helper()

    def connect(self) -> SessionKeys:
        """Start a session of one ring; return its keys."""
        hellos = greet(self.source.rings[0]), greet(self.target.rings[0])
        session = overheard(SECRET, ((self.images[0], self.source), (self.images[1], self.target)), hellos)
        settled = begin(self.source.rings[0], Role.MH_ROLE_SOURCE, hellos[1])
        assert begin(self.target.rings[0], Role.MH_ROLE_TARGET, hellos[0]) == settled == session.protocol
        return session

    def migrate(self, session: SessionKeys) -> None:
        """Move every page, in two epochs, and look at each packet and each page."""
        rings = self.source.rings[0], self.target.rings[0]
        pages = self.source.guest_pages()
        for page in pages:
            self.target.memory.spa(page)
        for epoch in range(2):
            for number, page in enumerate(pages):
                batch = Batch(address=self.source.request_address(page), count=1)
                packets, exported = export_batch(rings[0], batch)
                fields = abi.mh_packet(packets[0].packet)
                assert (fields.version, fields.epoch) == (session.protocol, epoch)
                expected = self.contents[number * PAGE : (number + 1) * PAGE]
                assert session.stream(0).open(packets[0].packet, packets[0].data) == expected
                results = [*exported, *import_batch(rings[1], batch, packets)]
                assert {result.status for result in results} == {Status.MH_DONE}
                assert self.target.read_guest(page) == expected
            end_epoch(*rings)
        assert finish(*rings) == 2 * PAGES

    def refusals(self) -> tuple[abi.mh_status, abi.mh_status]:
        """What source and target say to each other's hellos; neither may have a session then."""
        return refusals(Side(self.source, self.source.rings[0]), Side(self.target, self.target.rings[0]))


def refusals(source: Side, target: Side) -> tuple[abi.mh_status, abi.mh_status]:
    hellos = greet(source.ring), greet(target.ring)
    told = []
    for side, role, hello in ((source, Role.MH_ROLE_SOURCE, hellos[1]), (target, Role.MH_ROLE_TARGET, hellos[0])):
        with pytest.raises(HelperRefused) as refusal:
            begin(side.ring, role, hello)
        told.append(refusal.value.status)
        # What is left of it is the hello, which waits for another peer.
        assert side.ask(Op.MH_OP_EXPORT) == side.ask(Op.MH_OP_IMPORT) == Status.MH_WRONG_STATE
        side.ask(Op.MH_OP_ABORT)
        assert is_over(side)
    return told[0], told[1]


# ---- versions ----

SETTLED = [((4, 4), (4, 5), 4), ((4, 5), (4, 4), 4), ((4, 5), (4, 6), 5), ((4, 6), (5, 5), 5), ((4, 9), (7, 12), 9)]


@pytest.mark.parametrize(("source", "target", "settled"), SETTLED)
def test_the_highest_version_that_both_speak(source: tuple[int, int], target: tuple[int, int], settled: int) -> None:
    two = Two(built(protocols=source), built(protocols=target))
    session = two.connect()
    assert session.protocol == settled
    two.migrate(session)


@pytest.mark.parametrize(("source", "target"), [((5, 6), (4, 4)), ((4, 4), (5, 6)), ((4, 5), (6, 6))])
def test_no_version_that_both_speak(source: tuple[int, int], target: tuple[int, int]) -> None:
    two = Two(built(protocols=source), built(protocols=target))
    assert two.refusals() == (Status.MH_NO_PROTOCOL, Status.MH_NO_PROTOCOL)


def test_the_host_cannot_make_them_settle_on_an_earlier_version() -> None:
    """A range in a hello that the host has changed is an answer of its own, or a bad tag."""
    two = Two(built(protocols=(4, 6)), built(protocols=(4, 6)))
    hellos = [abi.mh_hello(greet(machine.rings[0])) for machine in (two.source, two.target)]
    hellos[1].high = 4
    with pytest.raises(HelperRefused, match="MH_BAD_HELLO"):
        begin(two.source.rings[0], Role.MH_ROLE_SOURCE, hellos[1].dumps())


# ---- layouts ----

OTHER_BUILDS: dict[str, dict[str, Any]] = {
    "more-vcpus": {"vcpus": 3},
    "another-home": {"home": 0x823000},
    "smaller-pages": {"largest_page": 2 * MIB, "ram_limit": 1 << 30},
    "more-ram": {"ram_limit": 8 << 30},
    "strict-build": {"strict": True},
    "another-base": {"base": 5 << 40},
    "later-versions": {"protocols": (3, 7), "vcpus": 2, "home": 0x280_3000},
}


@pytest.mark.parametrize("case", OTHER_BUILDS)
@pytest.mark.parametrize("other_side", ["source", "target"])
def test_helpers_of_different_builds(case: str, other_side: str) -> None:
    other = built(**OTHER_BUILDS[case])
    two = Two(other, built()) if other_side == "source" else Two(built(), other)
    two.migrate(two.connect())


@pytest.mark.parametrize(
    "schemes", [("regions", "isolated"), ("isolated", "alias-window"), ("alias-window", "regions")]
)
def test_schemes_that_mean_the_same_by_an_address(schemes: tuple[str, str]) -> None:
    two = Two(built(schemes[0]), built(schemes[1]))
    two.migrate(two.connect())


# ---- pairs that never have a session ----


@pytest.mark.parametrize("other", ["alias-window", "alias-window-high", "regions", "isolated"])
@pytest.mark.parametrize("gpa_side", ["source", "target"])
def test_schemes_that_mean_something_else_by_an_address(other: str, gpa_side: str) -> None:
    images = (built("alias-gpa", ram_limit=5 << 30), built(other))
    two = Two(*(images if gpa_side == "source" else images[::-1]))
    assert two.refusals() == (Status.MH_OTHER_ADDRESSES, Status.MH_OTHER_ADDRESSES)


OTHER_SECRETS: dict[str, tuple[dict[str, Any], abi.mh_status]] = {
    "another-guest": ({"guest": bytes(16)}, Status.MH_OTHER_GUEST),
    "another-guest-and-key": ({"guest": bytes(16), "key": bytes(32)}, Status.MH_OTHER_GUEST),
    "another-key": ({"key": bytes(32)}, Status.MH_BAD_HELLO),
    "other-terms": ({"flags": abi.MH_OWNER_STRICT}, Status.MH_OTHER_TERMS),
}


@pytest.mark.parametrize("case", OTHER_SECRETS)
def test_guests_that_are_not_the_same(case: str) -> None:
    """Two guests of one owner, or of one host; also where the owner has used a transport key twice."""
    changes, status = OTHER_SECRETS[case]
    two = Two(built(strict=True), built(strict=True), (SECRET, replace(SECRET, **changes)))
    assert two.refusals() == (status, status)


def side_of(image: Image) -> Side:
    machine: Machine = started(image)
    return Side(machine, machine.start_helper())


def test_no_session_from_encrypted_registers_to_plain_ones(
    images: dict[str, Image], es_images: dict[str, Image]
) -> None:
    source, target = side_of(es_images["regions"]), side_of(images["regions"])
    assert refusals(source, target) == (Status.MH_WEAKER_PEER, Status.MH_WEAKER_PEER)


def test_a_session_from_plain_registers_to_encrypted_ones(
    images: dict[str, Image], es_images: dict[str, Image]
) -> None:
    """The target keeps more from its host than the source's host has seen anyway."""
    source, target = side_of(images["regions"]), side_of(es_images["regions"])
    assert target.machine.helper.vmsa is not None
    connect_all([source.ring], [target.ring])
    page = source.machine.guest_pages()[0]
    assert target.put(page, source.export(page)) == Status.MH_DONE
    assert target.machine.read_guest(page) == source.machine.read_guest(page)
    assert finish(source.ring, target.ring) == 1


def test_an_owner_who_demands_encrypted_registers() -> None:
    """Two plain helpers with such a record have no session; the demand is the owner's, not the build's."""
    demanding = replace(SECRET, protection=abi.mh_protection.MH_PROTECTION_SEV_ES.value)
    two = Two(built(), built(), (demanding, demanding))
    assert two.refusals() == (Status.MH_WEAKER_PEER, Status.MH_WEAKER_PEER)
