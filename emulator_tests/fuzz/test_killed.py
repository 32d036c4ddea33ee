"""A whole migration in which a vCPU is lost: at every HLT, at random instructions, its shared memory in ruins or not.

Whatever the helpers answer then is documented, and no page of the guest changes but to what the other side has. The
guest is in one place: at the target once FINISH has agreed on all rings there, at the source till then. From there a
migration that is begun anew moves all of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from emulator_tests.fuzz.migration import PAGE, RINGS, Ask, connects, finishes, moves
from emulator_tests.fuzz.saved import Saved
from emulator_tests.fuzz.statuses import MIRROR
from emulator_tests.helper.conftest import PAGES, SECRET, boot_contents, contents_of
from emulator_tests.helper.rings import image_of
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.parts import PARTS
from mh_emulator.cpu.rdrand import Repeating
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import place
from mh_emulator.host.ring import Request
from mh_emulator.host.session import Batch
from mh_emulator.host.site import prepare
from mh_emulator.kvm.exits import Reason
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform

Op, Role, Status = abi.mh_op, abi.mh_role, abi.mh_status
MOST_INSTRUCTIONS = 30_000
"""More than any operation of this migration takes."""


def machine(seed: int, contents: bytes) -> Machine:
    helper = parse_image(image_of(RINGS).data)
    placement = place(PAGES * PAGE, helper)
    platform = Platform(PARTS["milan"], 16 << 20, seed)
    platform.generator = Repeating(seed)
    started = launch(
        prepare(platform, placement, helper), GuestOwner(POLICY), boot_contents(placement, contents), SECRET
    )
    started.start_helper()
    return started


@dataclass
class Guest:
    """Both sides of one migration, which can be had again from the start."""

    source: Machine
    target: Machine
    pages: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pages = self.source.guest_pages()
        for page in self.pages:
            self.target.memory.spa(page)
        self.ram = self.source.read_pages(self.pages)
        self.empty = self.target.read_pages(self.pages)
        self._saved = [Saved.of(one, [one.memory]) for one in (self.source, self.target)]

    def reset(self) -> None:
        for one, saved in zip((self.source, self.target), self._saved, strict=True):
            saved.restore()
            one.mirror.rings[:] = [one.mirror._ring(number) for number in range(RINGS)]

    def steps(self) -> Iterator[Ask[Machine]]:
        yield from connects(self.source, self.target)
        yield from moves(self.source, self.target, self.pages)
        yield from finishes(self.source, self.target)

    def ask(self, step: Ask[Machine]) -> int:
        """Have it served; its status, which has to be a documented one."""
        ring = step.machine.rings[step.ring]
        answer = ring.serve([step.request])[0]
        assert answer.status.value in MIRROR.of_operation(int(step.request.op)), answer
        return int(answer.status.value)

    def lose(self, step: Ask[Machine], instructions: int | None, noise: random.Random | None) -> None:
        """Run a vCPU to its next HLT, or so many instructions, and no further; then, maybe, write all over its ring."""
        ring = step.machine.rings[step.ring]
        ring.submit(step.request.dumps(0))
        reason = step.machine.mirror.vcpus[step.ring].run(instructions).reason
        assert reason is Reason.HLT or (instructions and reason is Reason.LIMIT)
        if noise:
            ring.write(0, noise.randbytes(abi.MH_RING_DATA + PAGE))

    def restart(self, step: Ask[Machine]) -> None:
        step.machine.rings[step.ring].write(0, bytes(PAGE))
        step.machine.mirror.restart(step.ring, anew=True)

    def is_whole(self, torn: int | None) -> None:
        """The source's RAM is as it was, and each page of the target is as it was or as the source's.

        But `torn`, at which a vCPU was lost: of that one, each block of the cipher is.
        """
        assert self.source.read_pages(self.pages) == self.ram
        now = self.target.read_pages(self.pages)
        for number, page in enumerate(self.pages):
            size = BLOCK_BYTES if page == torn else PAGE
            for at in range(number * PAGE, (number + 1) * PAGE, size):
                assert now[at : at + size] in (self.ram[at : at + size], self.empty[at : at + size]), hex(page)

    def moves_anew(self) -> None:
        """Whatever has been left, a host that ends all sessions can migrate the guest."""
        for one in (self.source, self.target):
            for number in range(RINGS):
                assert self.ask(Ask(one, number, Request(Op.MH_OP_ABORT))) == Status.MH_DONE
        assert {self.ask(step) for step in self.steps()} == {0}
        assert self.target.read_pages(self.pages) == self.ram


@pytest.fixture(scope="module")
def launched() -> Guest:
    return Guest(machine(1, contents_of(PAGES)), machine(2, b""))


@pytest.fixture
def guest(launched: Guest) -> Guest:
    launched.reset()
    return launched


def test_nobody_is_lost(guest: Guest) -> None:
    assert {guest.ask(step) for step in guest.steps()} == {0}
    assert guest.target.read_pages(guest.pages) == guest.ram
    assert guest.empty != guest.ram


STEPS = 2 + 2 + 2 + 2 * PAGES + 2 * RINGS + PAGES + 2 * RINGS


def test_steps(guest: Guest) -> None:
    assert sum(guest.ask(step) == 0 for step in guest.steps()) == STEPS


def play(guest: Guest, lost: int, instructions: int | None, noise: random.Random | None, *, late: bool) -> bool:
    """A migration in which the vCPU of step `lost` is; it is started again at once, or when all else is done.

    Whether the guest has arrived: FINISH has agreed on all rings of the target. What holds anyhow is looked at.
    """
    torn: int | None = None
    waits: Ask[Machine] | None = None
    agreed = 0
    for number, step in enumerate(guest.steps()):
        if number == lost:
            guest.lose(step, instructions, noise)
            torn = step.request.address if step.request.op == Op.MH_OP_IMPORT else None
            waits = step
            if not late:
                guest.restart(step)
                waits = None
        elif waits is None or (step.machine, step.ring) != (waits.machine, waits.ring):
            done = guest.ask(step) == 0
            agreed += done and step.request.op == Op.MH_OP_FINISH and step.machine is guest.target
    if waits is not None:
        guest.restart(waits)
    guest.is_whole(torn)
    if agreed == RINGS:
        assert guest.target.read_pages(guest.pages) == guest.ram
        # The source has nothing to give any more: all its rings have finished.
        for number in range(RINGS):
            step = Ask(guest.source, number, Batch(address=guest.pages[0], count=1).request(Op.MH_OP_EXPORT))
            assert guest.ask(step) == Status.MH_WRONG_STATE
    guest.moves_anew()
    return agreed == RINGS


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("ruined", [False, True], ids=["memory as it was", "memory in ruins"])
def test_lost_at_every_hlt(guest: Guest, *, ruined: bool, late: bool) -> None:
    """The session is over then, unless the source's ring had finished, and the packet is there."""
    arrivals = []
    for lost in range(STEPS):
        guest.reset()
        noise = random.Random(lost) if ruined else None
        arrivals.append(play(guest, lost, None, noise, late=late))
    # At the end of the source's rings there is nothing left to do but to carry their packets.
    ends = [STEPS - 4, STEPS - 2] if late else [STEPS - 2]
    assert [lost for lost, arrived in enumerate(arrivals) if arrived] == ([] if ruined else ends)


@pytest.mark.parametrize("part", range(2))
def test_lost_at_random_instructions(guest: Guest, part: int) -> None:
    """Half of the times with memory in ruins."""
    source = random.Random(part)
    for lost in range(STEPS):
        guest.reset()
        instructions = round(MOST_INSTRUCTIONS ** source.random())
        noise = source if source.random() < 0.5 else None
        play(guest, lost, instructions, noise, late=source.random() < 0.5)
