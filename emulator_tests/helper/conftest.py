"""A small guest on two platforms, both helpers started."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from emulator_tests.helper.oracle import overheard
from mh_abi import abi
from mh_abi.image import HelperImage, parse_image
from mh_builder.image.model import Image
from mh_builder.parts import PARTS, Part
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.ring import Request
from mh_emulator.host.session import begin, greet
from mh_emulator.host.side import Side
from mh_emulator.host.site import prepare
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Reason
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.peer import Peer, SessionKeys, StreamKeys
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

PAGES = 6
SECRET = Secret(key=bytes(range(100, 132)), guest=bytes(range(200, 216)))
DRAM_BYTES = 16 << 20

Op = abi.mh_op
Status = abi.mh_status


@dataclass
class Pair:
    """Source and target of one migration; `pages` are request addresses of guest pages."""

    source: Side
    target: Side
    pages: list[int]
    contents: bytes
    session: SessionKeys

    @property
    def keys(self) -> StreamKeys:
        """Of the ring's bulk lane."""
        return self.session.stream(0)

    def target_page(self, address: int) -> bytes:
        """What the target's guest sees in the page that a request calls `address`."""
        for page in self.source.machine.guest_pages():
            if self.source.machine.request_address(page) == address:
                return self.target.machine.read_guest(page)
        raise AssertionError(f"{address:#x} is no page of the guest")


def contents_of(pages: int) -> bytes:
    """RAM contents without two equal pages."""
    return random.Random("contents").randbytes(pages * abi.MH_PAGE_BYTES)


def launched(
    helper: HelperImage,
    part: Part,
    seed: int,
    contents: bytes,
    secret: Secret = SECRET,
    base: int | None = None,
    unplugged: int = 0,
) -> Machine:
    """A launched guest with `contents` in RAM, and `unplugged` bytes of RAM that has no GPA."""
    placement = place(PAGES * abi.MH_PAGE_BYTES, helper)
    placement = replace(placement, topology=replace(placement.topology, unplugged=unplugged))
    site = prepare(Platform(part, DRAM_BYTES, seed), placement, helper, base)
    return launch(site, GuestOwner(POLICY), boot_contents(placement, contents), secret)


def boot_contents(placement: Placement, contents: bytes) -> list[tuple[int, bytes]]:
    """`contents` as placed; none at all for an empty guest."""
    if not contents:
        return []
    return [(part.gpa, contents[part.offset : part.offset + part.size]) for part in placement.contents]


def started(machine: Machine) -> Side:
    """Start the helper."""
    return Side(machine, machine.start_helper())


def lonely(images: dict[str, Image], secret: Secret = SECRET) -> Side:
    """A helper without a session."""
    return started(launched(parse_image(images["regions"].data), PARTS["milan"], 1, contents_of(PAGES), secret))


def facing(side: Side, role: int, peer: Peer | None = None) -> SessionKeys:
    """Start a session in `role` with somebody who is played here; return what he makes of it."""
    peer = peer or Peer(SECRET)
    hello = greet(side.ring)
    assert any(abi.mh_hello(hello).nonce)
    begin(side.ring, role, peer.hello)
    return peer.keys(OTHER[role], hello)


OTHER: dict[int, int] = {
    abi.mh_role.MH_ROLE_SOURCE: abi.mh_role.MH_ROLE_TARGET.value,
    abi.mh_role.MH_ROLE_TARGET: abi.mh_role.MH_ROLE_SOURCE.value,
}
"""The role of the other side."""


def is_over(side: Side) -> bool:
    """Whether this side has no session: it serves nothing of one, and waits for no peer."""
    ops = (Op.MH_OP_EXPORT, Op.MH_OP_IMPORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH, Op.MH_OP_RESUME)
    start = Request(Op.MH_OP_START, role=abi.mh_role.MH_ROLE_SOURCE, count=1)
    answers = {side.ask(op) for op in ops} | {side.ring.serve([start])[0].status}
    return answers == {Status.MH_WRONG_STATE}


def at_work(side: Side, number: int = 0) -> Vcpu:
    """The side's vCPU, stopped in the middle of a refusal: there are handlers only while there is work."""
    vcpu = side.machine.mirror.vcpus[number]
    side.ring.submit(Request(0).dumps(0))
    assert vcpu.run(AT_WORK).reason is Reason.LIMIT
    return vcpu


AT_WORK = 60
"""Instructions after HLT: behind the claim and the IDT, before the completion."""

PairMaker = Callable[..., Pair]


def pair_of(image: Image, part: str = "milan", base: int | None = None) -> Pair:
    """A connected pair of this image."""
    helper = parse_image(image.data)
    contents = contents_of(PAGES)
    source = started(launched(helper, PARTS[part], 1, contents, base=base))
    target = started(launched(helper, PARTS[part], 2, b"", base=base))
    hellos = greet(source.ring), greet(target.ring)
    session = overheard(SECRET, ((image, source.machine), (image, target.machine)), hellos)
    begin(source.ring, abi.mh_role.MH_ROLE_SOURCE, hellos[1])
    begin(target.ring, abi.mh_role.MH_ROLE_TARGET, hellos[0])
    pages = [source.machine.request_address(page) for page in source.machine.guest_pages()]
    # The host gives the target's guest its pages: all zero, as anonymous memory is.
    for page in source.machine.guest_pages():
        target.machine.memory.spa(page)
    return Pair(source, target, pages, contents, session)


@pytest.fixture
def make_pair(images: dict[str, Image]) -> PairMaker:
    """A function that makes a connected pair for a scheme."""

    def make(scheme: str, part: str = "milan", base: int | None = None) -> Pair:
        return pair_of(images[scheme], part, base)

    return make


@pytest.fixture
def pair(make_pair: PairMaker) -> Pair:
    """A connected pair under `regions`, where addresses are `ram_addr`."""
    return make_pair("regions")
