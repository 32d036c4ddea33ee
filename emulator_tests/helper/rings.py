"""A session of several rings between two helpers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from emulator_tests.helper.conftest import PAGES, SECRET, contents_of, launched
from emulator_tests.helper.oracle import Helper, overheard
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image, vcpu_section
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_emulator.host.machine import Machine
from mh_emulator.host.ring import Ring, Sealed
from mh_emulator.host.session import begin, greet, join
from mh_emulator.host.side import Side
from mh_emulator.peer import SessionKeys, StreamKeys

RINGS = 3
Op = abi.mh_op
Role = abi.mh_role


@cache
def image_of(rings: int) -> Image:
    """A helper with that many vCPUs, for little RAM."""
    return build_helper("regions", Options(vcpus=rings, ram_limit=1 << 30))


def helper_of(machine: Machine) -> Helper:
    """A machine with its image."""
    return image_of(machine.vcpus), machine


def machine_of(rings: int, seed: int, contents: bytes = b"") -> Machine:
    """A launched guest with the helper's vCPUs started."""
    machine = launched(parse_image(image_of(rings).data), PARTS["milan"], seed, contents)
    machine.start_helper()
    return machine


def sides_of(machine: Machine) -> list[Side]:
    return [Side(machine, ring) for ring in machine.rings]


@dataclass
class Rings:
    """A session: ring i of the source speaks with ring i of the target."""

    sources: list[Side]
    targets: list[Side]
    session: SessionKeys
    pages: list[int]
    contents: bytes

    def keys(self, stream: int) -> StreamKeys:
        """What both helpers derive for a stream."""
        return self.session.stream(stream)

    def move(self, number: int, address: int) -> abi.mh_status:
        """Export a page on a ring, and import it on the same."""
        return self.targets[number].put(address, self.sources[number].export(address))

    def end(self, op: int, number: int) -> Sealed:
        """The source's packet that ends its epoch or part."""
        return self.sources[number].totals(op)

    def target_page(self, address: int) -> bytes:
        return self.targets[0].machine.read_guest(address)

    def page(self, number: int) -> bytes:
        """What page `number` of the guest held at its launch."""
        return self.contents[number * abi.MH_PAGE_BYTES : (number + 1) * abi.MH_PAGE_BYTES]


def start(source: Machine, target: Machine, rings: int) -> SessionKeys:
    """Start a session of that many rings on ring 0 of both; nobody else has joined."""
    hellos = greet(source.rings[0]), greet(target.rings[0])
    session = overheard(SECRET, (helper_of(source), helper_of(target)), hellos, rings)
    begin(source.rings[0], Role.MH_ROLE_SOURCE, hellos[1], rings)
    begin(target.rings[0], Role.MH_ROLE_TARGET, hellos[0], rings)
    return session


def connected(rings: int = RINGS) -> Rings:
    """Two guests, and a session of all rings."""
    contents = contents_of(PAGES)
    source, target = machine_of(rings, 1, contents), machine_of(rings, 2)
    session = start(source, target, rings)
    for ring in (*source.rings[1:], *target.rings[1:]):
        join(ring)
    pages = source.guest_pages()
    for page in pages:
        target.memory.spa(page)
    return Rings(sides_of(source), sides_of(target), session, pages, contents)


def bulk(rings: Rings) -> tuple[list[Ring], list[Ring]]:
    return [side.ring for side in rings.sources], [side.ring for side in rings.targets]


def block_of(machine: Machine, number: int) -> list[bytes]:
    """A vCPU's variables and its stacks."""
    image = image_of(machine.vcpus)
    block, *stacks = (image.section(vcpu_section(name, number)) for name in (".vcpu", ".stack", ".fault_stack"))
    places = [
        block.offset,
        *(stack.offset + page for stack in stacks for page in range(0, stack.size, abi.MH_PAGE_BYTES)),
    ]
    return [machine.read_helper(place, abi.MH_PAGE_BYTES) for place in places]


def block_holds(machine: Machine, number: int, secret: bytes) -> bool:
    return any(secret[:16] in page for page in block_of(machine, number))


def restarted(machine: Machine, number: int, *, anew: bool = False) -> Ring:
    """Start one vCPU again, on a ring that the host has cleared."""
    machine.rings[number].write(0, bytes(abi.MH_PAGE_BYTES))
    return machine.mirror.restart(number, anew=anew)
