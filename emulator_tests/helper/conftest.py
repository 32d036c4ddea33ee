"""A small guest on two platforms, both helpers started."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from emulator_tests.helper.oracle import SessionKeys, derive
from mh_builder.image.model import Image
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import POLICY
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.ring import Request, Ring, Sealed
from mh_emulator.host.session import Batch, begin, greet
from mh_emulator.loader import HelperImage, parse_image
from mh_emulator.owner import GuestOwner
from mh_emulator.parts import PARTS, Part
from mh_emulator.platform import Platform
from payload import abi

PAGES = 6
TRANSPORT_KEY = bytes(range(100, 132))
DRAM_BYTES = 16 << 20

Status = abi.mh_status


@dataclass
class Side:
    """One machine with its helper's ring."""

    machine: Machine
    ring: Ring

    def ask(self, op: int, address: int = 0, sealed: Sealed | None = None) -> abi.mh_status:
        """Submit one request, for one page where it moves any; return its status."""
        if sealed is not None:
            self.ring.put_sealed(0, sealed)
        is_batch = op in (abi.mh_op.MH_OP_EXPORT, abi.mh_op.MH_OP_IMPORT)
        request = Batch(address=address, count=1).request(op) if is_batch else Request(op, address=address)
        return self.ring.serve([request])[0].status

    def export(self, address: int) -> Sealed:
        """Export a page that must be exportable."""
        assert self.ask(abi.mh_op.MH_OP_EXPORT, address) == Status.MH_DONE
        return self.ring.take_sealed(0)

    def finish(self) -> Sealed:
        """End the session of a source."""
        assert self.ask(abi.mh_op.MH_OP_FINISH) == Status.MH_DONE
        return self.ring.take_sealed(0)

    def put(self, address: int, sealed: Sealed) -> abi.mh_status:
        """Import; return the status."""
        return self.ask(abi.mh_op.MH_OP_IMPORT, address, sealed)


@dataclass
class Pair:
    """Source and target of one migration; `pages` are request addresses of guest pages."""

    source: Side
    target: Side
    pages: list[int]
    contents: bytes
    keys: SessionKeys

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
    key: bytes = TRANSPORT_KEY,
    base: int | None = None,
    unplugged: int = 0,
) -> Machine:
    """A launched guest with `contents` in RAM, and `unplugged` bytes of RAM that has no GPA."""
    placement = place(PAGES * abi.MH_PAGE_BYTES, helper)
    placement = replace(placement, topology=replace(placement.topology, unplugged=unplugged))
    machine = Machine(Platform(part, DRAM_BYTES, seed), placement, helper, base)
    machine.launch(GuestOwner(POLICY), boot_contents(placement, contents), key)
    return machine


def boot_contents(placement: Placement, contents: bytes) -> list[tuple[int, bytes]]:
    """`contents` as placed; none at all for an empty guest."""
    if not contents:
        return []
    return [(part.gpa, contents[part.offset : part.offset + part.size]) for part in placement.contents]


def started(machine: Machine) -> Side:
    """Start the helper."""
    return Side(machine, machine.start_helper())


def lonely(images: dict[str, Image], key: bytes = TRANSPORT_KEY) -> Side:
    """A helper without a session."""
    return started(launched(parse_image(images["regions"].data), PARTS["milan"], 1, contents_of(PAGES), key))


PairMaker = Callable[..., Pair]


@pytest.fixture
def make_pair(images: dict[str, Image]) -> PairMaker:
    """A function that makes a connected pair for a scheme."""

    def make(scheme: str, part: str = "milan", base: int | None = None) -> Pair:
        helper = parse_image(images[scheme].data)
        contents = contents_of(PAGES)
        source = started(launched(helper, PARTS[part], 1, contents, base=base))
        target = started(launched(helper, PARTS[part], 2, b"", base=base))
        source_nonce, target_nonce = greet(source.ring), greet(target.ring)
        begin(source.ring, abi.mh_role.MH_ROLE_SOURCE, target_nonce)
        begin(target.ring, abi.mh_role.MH_ROLE_TARGET, source_nonce)
        pages = [source.machine.request_address(page) for page in source.machine.guest_pages()]
        # The host gives the target's guest its pages: all zero, as anonymous memory is.
        for page in source.machine.guest_pages():
            target.machine.memory.spa(page)
        return Pair(source, target, pages, contents, derive(TRANSPORT_KEY, source_nonce, target_nonce))

    return make


@pytest.fixture
def pair(make_pair: PairMaker) -> Pair:
    """A connected pair under `regions`, where addresses are `ram_addr`."""
    return make_pair("regions")
