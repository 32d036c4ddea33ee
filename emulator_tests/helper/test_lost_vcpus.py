"""vCPUs that the host stops, or loses, in the middle of joining, beginning or ending a session: none is ever begun
whose key another one could hit, or that counts a ring twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from emulator_tests.helper.conftest import PAGES, SECRET, Op, Status, at_work, contents_of
from emulator_tests.helper.events import reach
from emulator_tests.helper.memory import generation, session_key, working_memory
from emulator_tests.helper.rings import RINGS, image_of, machine_of, restarted, sides_of
from mh_abi import abi
from mh_emulator.host.machine import Machine
from mh_emulator.host.ring import Request
from mh_emulator.host.session import begin, greet, join
from mh_emulator.host.side import Side
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Reason
from mh_emulator.peer import Peer, SessionKeys

NO_KEY = bytes(abi.MH_KEY_BYTES)
PAGE = abi.MH_PAGE_BYTES
Role = abi.mh_role
START = Request(Op.MH_OP_START, role=Role.MH_ROLE_SOURCE, count=RINGS)


@pytest.fixture
def machine() -> Machine:
    """A source; its target is played here."""
    return machine_of(RINGS, 1, contents_of(PAGES))


class Session:
    """A session with a peer that is played here: asked for, then begun."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._peer = Peer(SECRET)
        self._hello = greet(machine.rings[0])
        machine.rings[0].put_packet(0, self._peer.hello)

    @property
    def keys(self) -> SessionKeys:
        return self._peer.keys(Role.MH_ROLE_TARGET, self._hello, RINGS)

    def start(self) -> abi.mh_status:
        self.machine.rings[0].put_packet(0, self._peer.hello)
        return self.machine.rings[0].serve([START])[0].status

    def is_whole(self, joined: int = 0) -> bool:
        """Whether the key waits for rings, each of them joins but for `joined`, and all have keys of this session."""
        if session_key(image_of(RINGS), self.machine) != self.keys.key:
            return False
        for number in {1, 2} - {joined}:
            join(self.machine.rings[number])
        return session_key(image_of(RINGS), self.machine) == NO_KEY and all(
            self._works(number) for number in range(RINGS)
        )

    def _works(self, number: int) -> bool:
        sealed = sides_of(self.machine)[number].export(number * PAGE)
        return self.keys.stream(number).open(sealed.packet, sealed.data) == self.machine.read_guest(number * PAGE)


def begun(machine: Machine) -> Session:
    for side in sides_of(machine):
        side.ask(Op.MH_OP_ABORT)
    session = Session(machine)
    assert session.start() == Status.MH_DONE
    return session


def submitted(machine: Machine, number: int, op: int) -> Vcpu:
    machine.rings[number].submit(Request(op).dumps(0))
    return machine.mirror.vcpus[number]


def steps_of(machine: Machine, number: int, op: int) -> int:
    """Instructions from HLT to HLT."""
    vcpu = submitted(machine, number, op)
    steps = 0
    while vcpu.run(1).reason is Reason.LIMIT:
        steps += 1
    return steps


def go_on(machine: Machine, number: int) -> None:
    machine.rings[number].run()


def lose(machine: Machine, number: int) -> None:
    restarted(machine, number, anew=True)


def abort(machine: Machine) -> None:
    assert sides_of(machine)[0].ask(Op.MH_OP_ABORT) == Status.MH_DONE


def restart(machine: Machine) -> None:
    restarted(machine, 0)


JOIN_STRIDE = 37
"""Instructions between two places in JOIN: it has thousands."""


@pytest.mark.parametrize("end", [abort, restart])
@pytest.mark.parametrize("then", [go_on, lose])
def test_a_ring_that_stops_while_it_joins(
    machine: Machine, end: Callable[[Machine], None], then: Callable[[Machine, int], None]
) -> None:
    """Meanwhile ring 0 ends that session, and begins the next: not before the joiner is out of the old one."""
    begun(machine)
    total = steps_of(machine, 1, Op.MH_OP_JOIN)
    answers = []
    for steps in range(1, total, JOIN_STRIDE):
        begun(machine)
        assert submitted(machine, 1, Op.MH_OP_JOIN).run(steps).reason is Reason.LIMIT
        end(machine)
        session = Session(machine)
        answers.append(session.start())
        then(machine, 1)
        # Who had not looked for a session yet finds the new one; who had looked is in the one that is over.
        found_new = then is go_on and answers[-1] == last_answer(machine, 1) == Status.MH_DONE
        if answers[-1] != Status.MH_DONE:
            assert session.start() == Status.MH_DONE
        assert session.is_whole(joined=int(found_new)), steps
    assert set(answers) == {Status.MH_DONE, Status.MH_BUSY}


def last_answer(machine: Machine, number: int) -> abi.mh_status:
    ring = machine.rings[number]
    return ring.completion(ring.completed - 1).status


def test_a_ring_that_is_lost_while_it_joins(machine: Machine) -> None:
    """It has not begun, and the session goes on; or it has, and the session is over for all: it never counts twice."""
    begun(machine)
    total = steps_of(machine, 1, Op.MH_OP_JOIN)
    over = []
    for steps in range(1, total, JOIN_STRIDE):
        session = begun(machine)
        assert submitted(machine, 1, Op.MH_OP_JOIN).run(steps).reason is Reason.LIMIT
        lose(machine, 1)
        over.append(session_key(image_of(RINGS), machine) == NO_KEY)
        if over[-1]:
            assert sides_of(machine)[0].ask(Op.MH_OP_EXPORT) == Status.MH_WRONG_STATE
            assert sides_of(machine)[2].ask(Op.MH_OP_JOIN) == Status.MH_WRONG_STATE
        else:
            assert session.is_whole(), steps
    assert set(over) == {False, True}
    assert over == sorted(over), "once it has begun"


@pytest.mark.parametrize("then", [go_on, lose])
def test_a_ring_that_stops_while_it_ends_a_session(machine: Machine, then: Callable[[Machine, int], None]) -> None:
    """At every instruction of an ABORT. START waits for it from the moment when it could wipe a key."""
    begun(machine)
    total = steps_of(machine, 1, Op.MH_OP_ABORT)
    answers = []
    for steps in steps_that_matter(total):
        begun(machine)
        assert submitted(machine, 1, Op.MH_OP_ABORT).run(steps).reason is Reason.LIMIT
        abort(machine)
        session = Session(machine)
        answers.append(session.start())
        if answers[-1] == Status.MH_DONE:
            # Ring 1 may still end this one, as any ring may; or it has ended the one before.
            then(machine, 1)
            over = session_key(image_of(RINGS), machine) == NO_KEY
            assert over == (sides_of(machine)[0].ask(Op.MH_OP_RESUME) == Status.MH_WRONG_STATE)
            session = session if not over else begun(machine)
        else:
            assert answers[-1] == Status.MH_BUSY
            then(machine, 1)
            assert session.start() == Status.MH_DONE
        assert session.is_whole(), steps
    assert set(answers) == {Status.MH_DONE, Status.MH_BUSY}


def test_a_ring_that_is_lost_while_it_ends_a_session(machine: Machine) -> None:
    """The session goes on, with its key for the rings that have not joined; or it is over, and its key is gone."""
    begun(machine)
    total = steps_of(machine, 1, Op.MH_OP_ABORT)
    over = []
    for steps in steps_that_matter(total):
        session = begun(machine)
        assert submitted(machine, 1, Op.MH_OP_ABORT).run(steps).reason is Reason.LIMIT
        lose(machine, 1)
        over.append(session_key(image_of(RINGS), machine) == NO_KEY)
        assert over[-1] == (sides_of(machine)[0].ask(Op.MH_OP_RESUME) == Status.MH_WRONG_STATE), steps
        assert over[-1] or session.is_whole(), steps
    assert set(over) == {False, True}
    assert over == sorted(over)


JOIN_LOOKS = 40
"""Instructions from the begin of JOIN that see to the key's copy."""


def stop_ended(machine: Machine, number: int) -> Vcpu:
    """Run ABORT on a ring until the session is over, and stop: its key still lies there."""
    key = session_key(image_of(RINGS), machine)
    vcpu = submitted(machine, number, Op.MH_OP_ABORT)
    while generation(image_of(RINGS), machine) % 2:
        assert vcpu.run(1).reason is Reason.LIMIT
    assert session_key(image_of(RINGS), machine) == key != NO_KEY
    return vcpu


def test_nobody_joins_a_session_that_is_over(machine: Machine) -> None:
    """Also not while its key is not wiped yet."""
    begun(machine)
    stop_ended(machine, 2)
    assert sides_of(machine)[1].ask(Op.MH_OP_JOIN) == Status.MH_WRONG_STATE
    assert session_key(image_of(RINGS), machine) != NO_KEY


def test_a_ring_that_copies_a_key_while_its_session_ends(machine: Machine) -> None:
    """It joins if it had the key whole when the session ended, and had looked again; then it finds that it is over."""
    answers = []
    for steps in range(JOIN_LOOKS):
        begun(machine)
        key = session_key(image_of(RINGS), machine)
        reach(submitted(machine, 1, Op.MH_OP_JOIN), image_of(RINGS).symbol("join").value, steps)
        stop_ended(machine, 2)
        copies = working_memory(image_of(RINGS), machine).count(key)
        go_on(machine, 1)
        answers.append(last_answer(machine, 1))
        assert copies == 2 or answers[-1] == Status.MH_WRONG_STATE, steps
        go_on(machine, 2)
        assert sides_of(machine)[1].ask(Op.MH_OP_EXPORT) == Status.MH_WRONG_STATE
    assert set(answers) == {Status.MH_WRONG_STATE, Status.MH_DONE}


def steps_that_matter(total: int) -> Iterator[int]:
    """All at the beginning, where the session ends; some of those that wipe the ring's own keys."""
    yield from range(1, min(total, 200))
    yield from range(200, total, 101)


@pytest.mark.parametrize("then", [go_on, lose])
def test_a_ring_that_aborts_while_ring_0_begins(machine: Machine, then: Callable[[Machine, int], None]) -> None:
    """START has looked at the others already, and has written the key, but the session is not alive yet. Whoever began
    an ABORT meanwhile has found nothing to end."""
    session = Session(machine)
    stop_with_key(machine)
    for steps in steps_that_matter(steps_of(machine, 1, Op.MH_OP_ABORT)):
        assert submitted(machine, 1, Op.MH_OP_ABORT).run(steps).reason is Reason.LIMIT
        then(machine, 1)
        assert session_key(image_of(RINGS), machine) == session.keys.key, steps
    go_on(machine, 0)
    assert last_answer(machine, 0) == Status.MH_DONE
    assert session.is_whole()


@pytest.mark.parametrize("how", ["fault", "lost"])
def test_a_ring_that_fails_while_ring_0_begins(machine: Machine, how: str) -> None:
    """It may have a part in the session before; the one that begins is not its own."""
    begun(machine)
    join(machine.rings[1])
    abort(machine)
    session = Session(machine)
    if how == "fault":
        sides_of(machine)[1].ask(Op.MH_OP_RESUME)
        vcpu = at_work(sides_of(machine)[1], 1)
        stop_with_key(machine)
        vcpu.set_registers(replace(vcpu.get_registers(), rip=0xFFFF_9000_0000_0000))
        machine.mirror.run(1)
        assert machine.rings[1].header().state == abi.mh_ring_state.MH_RING_FAULT
    else:
        stop_with_key(machine)
    lose(machine, 1)
    assert session_key(image_of(RINGS), machine) == session.keys.key
    go_on(machine, 0)
    assert last_answer(machine, 0) == Status.MH_DONE
    assert session.is_whole()


def stop_with_key(machine: Machine) -> Vcpu:
    """Run START on ring 0 until the session's key is written, and stop."""
    ring = machine.rings[0]
    assert session_key(image_of(RINGS), machine) == NO_KEY
    ring.submit(START.dumps(0))
    vcpu = machine.mirror.vcpus[0]
    while session_key(image_of(RINGS), machine) == NO_KEY:
        assert vcpu.run(1000).reason is Reason.LIMIT
    return vcpu


@pytest.mark.parametrize("beyond", [0, 1000, 2500])
@pytest.mark.parametrize("how", ["fault", "lost"])
def test_ring_0_that_is_lost_while_it_begins(machine: Machine, how: str, beyond: int) -> None:
    """With the key written, and the session alive or not yet: the key goes, and nobody joins."""
    session = Session(machine)
    vcpu = stop_with_key(machine)
    assert vcpu.run(beyond + 1).reason is Reason.LIMIT
    assert session_key(image_of(RINGS), machine) == session.keys.key
    if how == "fault":
        vcpu.set_registers(replace(vcpu.get_registers(), rip=0xFFFF_9000_0000_0000))
        machine.mirror.run(0)
        assert machine.rings[0].header().state == abi.mh_ring_state.MH_RING_FAULT
    else:
        lose(machine, 0)
    assert session_key(image_of(RINGS), machine) == NO_KEY
    assert sides_of(machine)[1].ask(Op.MH_OP_JOIN) == Status.MH_WRONG_STATE
    restarted(machine, 0, anew=True)
    assert begun(machine).is_whole()


# ---- pages ----


def test_no_page_is_lost_with_a_vcpu() -> None:
    """Whatever a vCPU was about to do with a page when it was lost, the next session moves it."""
    machine = machine_of(1, 1, contents_of(PAGES))
    for steps in range(1, 400, 5):
        side = Side(machine, machine.rings[0])
        connected_alone(side)
        side.ring.submit(Request(Op.MH_OP_EXPORT, count=3, chunk=3, address=0).dumps(0))
        assert machine.mirror.vcpus[0].run(steps).reason is Reason.LIMIT
        side.ring = restarted(machine, 0, anew=True)
        connected_alone(side)
        side.export(0)


def test_no_page_is_lost_with_a_vcpu_that_ends_an_epoch() -> None:
    """Of many words of the bitmaps, at any instruction."""
    pages = [number * 64 * PAGE for number in range(12)]
    machine = machine_of(1, 1)
    for page in pages:
        machine.memory.spa(page)
    side = Side(machine, machine.rings[0])
    connected_alone(side)
    total = steps_of(machine, 0, Op.MH_OP_EPOCH)
    for steps in range(1, total, 13):
        connected_alone(side)
        for page in pages:
            side.export(page)
        assert submitted(machine, 0, Op.MH_OP_EPOCH).run(steps).reason is Reason.LIMIT
        side.ring = restarted(machine, 0, anew=True)
    connected_alone(side)
    for page in pages:
        side.export(page)


def connected_alone(side: Side) -> None:
    side.ask(Op.MH_OP_ABORT)
    greet(side.ring)
    begin(side.ring, Role.MH_ROLE_SOURCE, Peer(SECRET).hello)
