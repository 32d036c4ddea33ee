"""Events that a hostile host injects: a record and no keys, or no more vCPU, whatever the frame looks like.

AMD64 APM volume 2, section 15.20: an event is taken unconditionally, with an error code or without as the host likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import pytest

from emulator_tests.helper.conftest import PAGES, SECRET, Pair, Status, contents_of, launched, started
from emulator_tests.helper.events import Checkpoint, Difference, inject_at, reach, restart
from emulator_tests.helper.rings import image_of
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_emulator.cpu.eventinj import EventInjection, Kind
from mh_emulator.host.ring import Lane, Request
from mh_emulator.host.session import Batch, greet
from mh_emulator.host.side import Side
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.peer import Peer, StreamKeys

Op = abi.mh_op
State = abi.mh_ring_state
ERROR_CODE = 0x5A5A
GP = 13
IN_IDT = 2
FIRST = EventInjection(Kind.INTR, 14)
STRIDE, PLACES = 50, 100
SHUTDOWN, HLT = Exit(Reason.SHUTDOWN), Exit(Reason.HLT)

EVENTS = [
    event
    for code in (None, ERROR_CODE)
    for event in (
        *(EventInjection(Kind.INTR, vector, code) for vector in range(256)),
        *(EventInjection(Kind.SOFTWARE, vector, code) for vector in range(256)),
        *(EventInjection(Kind.EXCEPTION, vector, code) for vector in range(32)),
        EventInjection(Kind.NMI, 0, code),
    )
    if event.is_accepted
]
TELLING = [
    EventInjection(Kind.INTR, 14),
    EventInjection(Kind.INTR, 3, ERROR_CODE),
    EventInjection(Kind.INTR, 8),
    EventInjection(Kind.INTR, 32),
    EventInjection(Kind.INTR, 255, ERROR_CODE),
    EventInjection(Kind.NMI),
    EventInjection(Kind.NMI, 0, ERROR_CODE),
    EventInjection(Kind.EXCEPTION, 28),
    EventInjection(Kind.EXCEPTION, 29, ERROR_CODE),
    EventInjection(Kind.EXCEPTION, 8, ERROR_CODE),
    EventInjection(Kind.EXCEPTION, 1),
    EventInjection(Kind.SOFTWARE, 13),
]


@dataclass
class Scene:
    """Source and target of a session, and the page that requests name."""

    image: Image
    source: Side
    target: Side
    page: int
    keys: StreamKeys

    def checkpoint(self, side: Side) -> Checkpoint:
        return Checkpoint(side.machine, self.keys.page_key, SECRET.key)

    def at(self, side: Side, lane: Lane, op: int, symbol: str, beyond: int) -> None:
        """Submit a request for the page and stop `beyond` instructions behind `symbol`."""
        lane.submit(Batch(address=self.page, count=1).request(op).dumps(0))
        reach(side.machine.mirror.vcpu, self.image.symbol(symbol).value, beyond)


@pytest.fixture
def images() -> dict[str, Image]:
    """For little RAM, so that a checkpoint is small."""
    return {"regions": image_of(1)}


@pytest.fixture
def scene(pair: Pair, images: dict[str, Image]) -> Scene:
    return Scene(images["regions"], pair.source, pair.target, pair.pages[1], pair.keys)


@dataclass
class Outcome:
    """What came of an event."""

    event: EventInjection
    exit_: Exit
    difference: Difference
    header_changed: bool


def complaint(scene: Scene, side: Side, outcome: Outcome) -> str | None:
    """What is wrong with the outcome of an event; None where nothing is."""
    event, exit_, difference = outcome.event, outcome.exit_, outcome.difference
    if difference.guest not in ([], [scene.page]):
        return f"guest RAM changed at {difference.guest[:4]}"
    if exit_ == SHUTDOWN:
        return None
    header = side.ring.header()
    if exit_ != HLT or header.state != State.MH_RING_FAULT:
        return f"{exit_.reason.name} with {State(header.state).name}"
    if (header.fault.vector, header.fault.error_code) != missing(event) and not (
        header.fault.vector == event.event().vector < 32
    ):
        return f"recorded as vector {header.fault.vector}, error code {header.fault.error_code:#x}"
    return f"keys left at {difference.exposed}" if difference.exposed else None


def missing(event: EventInjection) -> tuple[int, int]:
    """The #GP of a vector that the IDT has no gate for; EXT unless an instruction asked for it."""
    asked = event.event()
    return GP, asked.vector << 3 | IN_IDT | asked.external


Judge = Callable[[Scene, Side, Outcome], str | None]


def try_all(scene: Scene, side: Side, events: list[EventInjection], judge: Judge = complaint) -> None:
    """Inject each where the helper has stopped, and leave it there as it was."""
    point = scene.checkpoint(side)
    for event in events:
        exit_ = inject_at(side.machine.mirror.vcpu, event, 0)
        outcome = Outcome(event, exit_, point.difference(), not point.is_header_as_it_was())
        wrong = judge(scene, side, outcome)
        assert wrong is None, f"{event}: {wrong}"
        point.restore(outcome.difference)


def only_shutdown(scene: Scene, side: Side, outcome: Outcome) -> str | None:
    """Where nothing else may come, and the ring stays as it was."""
    if outcome.exit_ != SHUTDOWN or outcome.header_changed:
        return f"{outcome.exit_.reason.name}, ring changed: {outcome.header_changed}"
    return complaint(scene, side, outcome)


def goes_on(side: Side, lane: Lane) -> None:
    """Without an event the request at work is served."""
    lane.run()
    assert lane.results(0, 1)[0].status == Status.MH_DONE
    assert side.ring.header().state == State.MH_RING_READY


def test_before_the_helper_has_an_idt(scene: Scene) -> None:
    restart(scene.source.machine)
    reach(scene.source.machine.mirror.vcpu, scene.image.symbol("entry64").value, 5)

    try_all(scene, scene.source, EVENTS, only_shutdown)


def test_idle(scene: Scene) -> None:
    try_all(scene, scene.source, EVENTS)
    scene.source.export(scene.page)


@pytest.mark.parametrize("urgent", [False, True], ids=["bulk", "urgent"])
def test_in_the_cipher_of_an_export(scene: Scene, *, urgent: bool) -> None:
    lane = scene.source.ring.urgent if urgent else scene.source.ring
    scene.at(scene.source, lane, Op.MH_OP_EXPORT, "gcm_seal", 300)
    assert scene.checkpoint(scene.source).difference().exposed, "there is something to wipe"
    try_all(scene, scene.source, EVENTS)
    goes_on(scene.source, lane)


@pytest.mark.parametrize("urgent", [False, True], ids=["bulk", "urgent"])
def test_in_the_cipher_of_an_import(scene: Scene, *, urgent: bool) -> None:
    source, target = (side.ring.urgent if urgent else side.ring for side in (scene.source, scene.target))
    Batch(address=scene.page, count=1).submit(source, Op.MH_OP_EXPORT)
    target.put_sealed(0, source.take_sealed(0))
    scene.at(scene.target, target, Op.MH_OP_IMPORT, "gcm_open", 300)
    try_all(scene, scene.target, EVENTS)
    goes_on(scene.target, target)
    assert scene.target.machine.read_guest(scene.page) == scene.source.machine.read_guest(scene.page)


def test_while_a_session_starts(scene: Scene) -> None:
    side = scene.source
    assert side.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    greet(side.ring)
    side.ring.put_packet(0, Peer(SECRET).hello)
    request = Request(Op.MH_OP_START, role=abi.mh_role.MH_ROLE_SOURCE, count=1)
    side.ring.submit(request.dumps(0))
    reach(side.machine.mirror.vcpu, scene.image.symbol("x25519").value, 100)
    try_all(scene, side, EVENTS)
    side.ring.run()


def test_in_the_handler(scene: Scene) -> None:
    """A second event, at several places behind the first."""
    side = scene.source
    vcpu = side.machine.mirror.vcpu
    scene.at(side, side.ring, Op.MH_OP_EXPORT, "gcm_seal", 300)
    start = scene.checkpoint(side)
    for steps in (0, 1, 3, 10, 60, 400):
        vcpu.inject_event(FIRST)
        assert vcpu.run(steps) == Exit(Reason.LIMIT)
        try_all(scene, side, EVENTS if steps == 10 else TELLING, second)
        assert vcpu.run() == HLT
        start.restore(start.difference())


def second(scene: Scene, side: Side, outcome: Outcome) -> str | None:
    """Of an event in the handler of FIRST: the record may be of either."""
    if outcome.exit_ == HLT and side.ring.header().fault.vector == FIRST.vector:
        return complaint(scene, side, replace(outcome, event=FIRST))
    return complaint(scene, side, outcome)


@pytest.mark.parametrize("reason", ["fault", "broken ring"])
def test_after_the_helper_has_stopped(scene: Scene, reason: str) -> None:
    """Nothing but a shutdown, and the ring as it was: a stopped helper touches no block, which may be another's."""
    side = scene.source
    vcpu = side.machine.mirror.vcpu
    if reason == "fault":
        scene.at(side, side.ring, Op.MH_OP_EXPORT, "gcm_seal", 300)
        vcpu.inject_event(EventInjection(Kind.NMI))
    else:
        side.ring.write(abi.mh_ring.fields["tail"].offset, b"\xff\xff\xff\x7f")
    assert vcpu.run() == HLT
    assert side.ring.header().state != State.MH_RING_READY

    try_all(scene, side, EVENTS, only_shutdown)


def strides(scene: Scene, side: Side, places: int) -> Iterator[int]:
    """Stop the helper at that many places in the request that was submitted, spread over it."""
    vcpu = side.machine.mirror.vcpu
    start = scene.checkpoint(side)
    length = 0
    while vcpu.run(STRIDE).reason is Reason.LIMIT:
        length += STRIDE
    start.restore(start.difference())
    assert length > places
    for _ in range(places):
        assert vcpu.run(length // places) == Exit(Reason.LIMIT)
        yield length // places


def test_all_over_an_export(scene: Scene) -> None:
    ring = scene.source.ring
    ring.submit(Batch(address=scene.page, count=1).request(Op.MH_OP_EXPORT).dumps(0))
    visited = sum(1 for _ in swept(scene, scene.source))
    assert visited == PLACES
    goes_on(scene.source, ring)


def test_all_over_an_import(scene: Scene) -> None:
    sealed, ring = scene.source.export(scene.page), scene.target.ring
    ring.put_sealed(0, sealed)
    ring.submit(Batch(address=scene.page, count=1).request(Op.MH_OP_IMPORT).dumps(0))
    visited = sum(1 for _ in swept(scene, scene.target))
    assert visited == PLACES
    goes_on(scene.target, ring)
    assert scene.target.machine.read_guest(scene.page) == scene.source.machine.read_guest(scene.page)


def swept(scene: Scene, side: Side) -> Iterator[int]:
    for stride in islice(strides(scene, side, PLACES), PLACES):
        try_all(scene, side, TELLING)
        yield stride


@pytest.mark.parametrize("event", TELLING)
def test_under_sev_es(es_images: dict[str, Image], event: EventInjection) -> None:
    """EVENTINJ is in the VMCB, which is the host's: a measured vCPU that has just begun to work."""
    side = started(launched(parse_image(es_images["regions"].data), PARTS["milan"], 1, contents_of(PAGES)))
    before = [side.machine.read_guest(page) for page in side.machine.guest_pages()]
    side.ring.submit(Request(Op.MH_OP_HELLO).dumps(0))
    exit_ = inject_at(side.machine.mirror.vcpu, event, 40)
    assert [side.machine.read_guest(page) for page in side.machine.guest_pages()] == before
    assert exit_ == SHUTDOWN or (exit_ == HLT and side.ring.header().state == State.MH_RING_FAULT)
