"""A whole migration under SNP in which a vCPU of a helper is stopped, for good or not: at HLTs, at random instructions.

No host can start such a vCPU anew. Its shared memory may be in ruins when it goes on. The guest is in one place: at the
target once FINISH has agreed on all rings there, at the source until it is asked for its context, and never in both.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from emulator_tests.fuzz.ground import PAGE, RINGS, begin_at
from emulator_tests.fuzz.migration import Ask, carried, connects, finishes, moves
from emulator_tests.fuzz.snp_ground import SnpGround
from emulator_tests.fuzz.statuses import SNP
from mh_abi import abi
from mh_emulator.host.ring import HelperStopped, Lane, Request
from mh_emulator.kvm.exits import Reason

Op, Role, Status = abi.mh_op, abi.mh_role, abi.mh_status
Step = Ask[SnpGround]
PAGES = 3
MOST_INSTRUCTIONS = 30_000
STEPS = 6 + 2 * (PAGES + 2 + RINGS) + 2 + 2 + 2 * RINGS
LEAVES = STEPS - 2 * RINGS - 2
"""The step with which the guest leaves: CONTEXT at the source."""
_RUINS = abi.MH_RING_DATA + PAGE


@dataclass
class Guest:
    """Both sides of one migration, which can be had again from the start."""

    source: SnpGround
    target: SnpGround
    pages: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source.ready(Role.MH_ROLE_SOURCE)
        self.target.ready(Role.MH_ROLE_TARGET)
        self.pages = self.source.pages[:PAGES]
        self._saved = [side.saved() for side in self.sides]
        self.reset()

    @property
    def sides(self) -> tuple[SnpGround, SnpGround]:
        return self.source, self.target

    def reset(self) -> None:
        for side, saved in zip(self.sides, self._saved, strict=True):
            saved.restore()
            side.rings[:] = map(side.ring_again, range(RINGS))

    def steps(self) -> Iterator[Step]:
        source, target = self.sides
        yield from connects(source, target)
        yield from moves(source, target, self.pages)
        yield from carried(source, target, 0, self._state, Op.MH_OP_EXPORT)
        source.rings[0].put_packet(0, source.machine.context_spa.to_bytes(8, "little"))
        yield from carried(source, target, 0, Request, Op.MH_OP_CONTEXT)
        yield from finishes(source, target)

    def _state(self, op: int) -> Request:
        return replace(self.source.machine.vmsa.request(op), op=op)

    def ask(self, side: SnpGround, ring: int, request: Request) -> int | None:
        """The status, which has to be a documented one; None where the helper does not serve."""
        try:
            status = int(side.rings[ring].serve([request])[0].status)
        except HelperStopped:
            return None
        assert status in SNP.of_operation(int(request.op)), status
        assert not (self.source.lives and self.target.lives)
        return status

    def stop(self, step: Step, instructions: int | None, noise: random.Random | None) -> None:
        """Run a vCPU to its next HLT, or so many instructions, and no further; then, maybe, write all over its ring."""
        ring = step.machine.rings[step.ring]
        ring.submit(step.request.dumps(0))
        reason = step.machine.enter(step.machine.vcpus[step.ring], instructions).reason
        assert reason is Reason.HLT or (instructions and reason is Reason.LIMIT)
        if noise:
            ring.write(0, noise.randbytes(_RUINS))

    def goes_on(self, step: Step) -> bool:
        """Run it to its HLT; whether it serves its ring again, whose tails are right then."""
        machine, number = step.machine, step.ring
        assert machine.enter(machine.vcpus[number]).reason is Reason.HLT
        assert not (self.source.lives and self.target.lives)
        ring = machine.rings[number]
        at, block = machine.offsets, machine.block(number)
        lanes: tuple[Lane, Lane] = ring, ring.urgent
        for name, lane in zip(("vcpu.bulk", "vcpu.urgent"), lanes, strict=True):
            head = at[name] + at["lane.head"]
            begin_at(lane, int.from_bytes(block[head : head + 4], "little"))
        return self.ask(machine, number, Request(Op.MH_OP_ABORT)) == Status.MH_DONE

    def run(self, side: SnpGround) -> bool:
        """Whether the host can have the guest run there."""
        return self.ask(side, 0, Request(Op.MH_OP_RUN, count=side.machine.number)) == Status.MH_DONE and side.lives


@pytest.fixture(scope="module")
def launched() -> Guest:
    return Guest(SnpGround("guest"), SnpGround("none", 2))


@pytest.fixture
def guest(launched: Guest) -> Guest:
    launched.reset()
    return launched


def test_nobody_is_stopped(guest: Guest) -> None:
    contents = [guest.source.read(page) for page in guest.pages]
    statuses = [guest.ask(step.machine, step.ring, step.request) for step in guest.steps()]
    assert statuses == [0] * STEPS
    assert [guest.target.read(page) for page in guest.pages] == contents
    assert not guest.source.lives
    assert guest.run(guest.target)
    assert not guest.run(guest.source)


def play(guest: Guest, lost: int, instructions: int | None, noise: random.Random | None, *, killed: bool) -> None:
    """The host goes no further than that step, and tries to have the guest on both sides; then the vCPU goes on.

    Where it is `killed` it does not.
    """
    step = None
    for number, step in enumerate(guest.steps()):
        if number == lost:
            guest.stop(step, instructions, noise)
            break
        assert guest.ask(step.machine, step.ring, step.request) == Status.MH_DONE
    assert step is not None
    serves = not killed and guest.goes_on(step)
    others = [
        (side, ring) for side in guest.sides for ring in range(RINGS) if (side, ring) != (step.machine, step.ring)
    ]
    for side, ring in others:
        assert guest.ask(side, ring, Request(Op.MH_OP_ABORT)) == Status.MH_DONE
    stuck = {step.machine} if step.ring == 0 and not serves else set()
    had = [side for side in guest.sides if side not in stuck and guest.run(side)]
    lives = [side for side in guest.sides if side.lives]
    assert len(lives) <= 1
    if lost < LEAVES:
        assert guest.target not in lives
        assert guest.source in stuck or had == [guest.source] or guest.source.lives
    if lost == STEPS - 1 and serves and not noise:
        assert had == [guest.target]


@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "killed"])
@pytest.mark.parametrize("ruined", [False, True], ids=["memory as it was", "memory in ruins"])
def test_stopped_at_every_hlt(guest: Guest, *, ruined: bool, killed: bool) -> None:
    for lost in range(STEPS):
        guest.reset()
        play(guest, lost, None, random.Random(lost) if ruined else None, killed=killed)


@pytest.mark.parametrize("part", range(2))
def test_stopped_at_random_instructions(guest: Guest, part: int) -> None:
    """Half of the times with memory in ruins."""
    source = random.Random(part)
    for lost in range(STEPS):
        guest.reset()
        instructions = round(MOST_INSTRUCTIONS ** source.random())
        play(guest, lost, instructions, source if source.random() < 0.5 else None, killed=source.random() < 0.3)
