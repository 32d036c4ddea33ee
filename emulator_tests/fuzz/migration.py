"""A whole migration, one submission after the other, each of which its vCPU may not survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mh_abi import abi
from mh_emulator.host.ring import Request, Ring, Sealed
from mh_emulator.host.session import Batch

PAGE = abi.MH_PAGE_BYTES
RINGS = 2
Op, Role = abi.mh_op, abi.mh_role


class HasRings(Protocol):
    """A side of a migration."""

    @property
    def rings(self) -> list[Ring]:
        """One for each vCPU of its helper."""


Side = TypeVar("Side", bound=HasRings)


@dataclass(frozen=True, slots=True)
class Ask(Generic[Side]):
    """One submission of the host's, after which the vCPU halts."""

    machine: Side
    ring: int
    request: Request


def connects(source: Side, target: Side) -> Iterator[Ask[Side]]:
    """A session of all rings."""
    for one in (source, target):
        yield Ask(one, 0, Request(Op.MH_OP_HELLO))
    hellos = source.rings[0].take_hello(0), target.rings[0].take_hello(0)
    for one, role, hello in ((source, Role.MH_ROLE_SOURCE, hellos[1]), (target, Role.MH_ROLE_TARGET, hellos[0])):
        one.rings[0].put_packet(0, hello)
        yield Ask(one, 0, Request(Op.MH_OP_START, role=role, count=RINGS))
    for one in (source, target):
        yield Ask(one, 1, Request(Op.MH_OP_JOIN))


def moves(source: Side, target: Side, pages: list[int]) -> Iterator[Ask[Side]]:
    """Every page once, half of them again in a second epoch, on both rings."""
    for number, page in enumerate(pages):
        yield from carried(source, target, number % RINGS, Batch(address=page, count=1).request, Op.MH_OP_EXPORT)
    for ring in range(RINGS):
        yield from carried(source, target, ring, Request, Op.MH_OP_EPOCH)
    for page in pages[::2]:
        yield from carried(source, target, 1, Batch(address=page, count=1).request, Op.MH_OP_EXPORT)


def finishes(source: Side, target: Side) -> Iterator[Ask[Side]]:
    """The end on all rings."""
    for ring in range(RINGS):
        yield from carried(source, target, ring, Request, Op.MH_OP_FINISH)


def carried(source: Side, target: Side, ring: int, request: Callable[[int], Request], op: int) -> Iterator[Ask[Side]]:
    """The source's part, and the target's with its packet."""
    yield Ask(source, ring, request(op))
    target.rings[ring].put_sealed(0, taken(source.rings[ring]))
    yield Ask(target, ring, request(Op.MH_OP_IMPORT if op == Op.MH_OP_EXPORT else op))


def taken(ring: Ring) -> Sealed:
    """What lies in the first slot, a packet or not."""
    return Sealed(ring.read(abi.MH_RING_PACKETS, len(abi.mh_packet)), ring.read(abi.MH_RING_DATA, PAGE))
