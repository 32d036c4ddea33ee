"""What a thief learns who gets the transport key, or all memory of a helper, after a session: none of its page keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emulator_tests.helper.conftest import SECRET, Op, Status, at_work
from emulator_tests.helper.memory import found, session_key, working_memory
from emulator_tests.helper.oracle import overheard, scalar_of
from emulator_tests.helper.rings import RINGS, helper_of, image_of, machine_of, restarted, sides_of, start
from mh_abi import abi
from mh_emulator.host.machine import Machine
from mh_emulator.host.ring import HelperStopped
from mh_emulator.host.session import begin, finish_all, greet, join
from mh_emulator.peer import SessionKeys, session_keys

NO_KEY = bytes(abi.MH_KEY_BYTES)
Role = abi.mh_role


@pytest.fixture
def machines() -> tuple[Machine, Machine]:
    return machine_of(RINGS, 1), machine_of(RINGS, 2)


def page_keys(session: SessionKeys, rings: int = RINGS) -> list[bytes]:
    """Of all lanes."""
    return [session.stream(urgent | number).page_key for number in range(rings) for urgent in (0, abi.MH_STREAM_URGENT)]


# ---- what START and JOIN need ----


def test_the_scalar_is_gone_after_the_start(machines: tuple[Machine, Machine]) -> None:
    hellos = [greet(machine.rings[0]) for machine in machines]
    scalars = [scalar_of(image_of(RINGS), machine) for machine in machines]
    for machine, scalar in zip(machines, scalars, strict=True):
        assert len(found(image_of(RINGS), machine, scalar)) == 4, "the search can find it"
    begin(machines[0].rings[0], Role.MH_ROLE_SOURCE, hellos[1], RINGS)
    begin(machines[1].rings[0], Role.MH_ROLE_TARGET, hellos[0], RINGS)
    for machine in machines:
        assert found(image_of(RINGS), machine, *scalars) == set()


@pytest.mark.parametrize("how", ["hello", "abort", "restart", "fault"])
def test_a_hello_that_never_served_leaves_no_scalar(how: str) -> None:
    machine = machine_of(1, 1)
    greet(machine.rings[0])
    scalar = scalar_of(image_of(1), machine)
    side = sides_of(machine)[0]
    match how:
        case "hello":
            greet(machine.rings[0])
        case "abort":
            side.ask(Op.MH_OP_ABORT)
        case "restart":
            restarted(machine, 0)
        case "fault":
            crash(machine, 0)
    assert found(image_of(1), machine, scalar) == set()


def test_the_sessions_key_stays_until_the_last_ring_has_joined(machines: tuple[Machine, Machine]) -> None:
    session = start(*machines, RINGS)
    for machine in machines:
        for ring in machine.rings[1:]:
            assert session_key(image_of(RINGS), machine) == session.key
            join(ring)
        assert session_key(image_of(RINGS), machine) == NO_KEY
        assert found(image_of(RINGS), machine, session.key) == set()
        assert all(key in working_memory(image_of(RINGS), machine) for key in page_keys(session))


def test_a_session_of_one_ring_leaves_no_key_of_its_own() -> None:
    machines = machine_of(RINGS, 1), machine_of(RINGS, 2)
    session = start(*machines, 1)
    for machine in machines:
        assert session_key(image_of(RINGS), machine) == NO_KEY
        assert found(image_of(RINGS), machine, session.key) == set()


def test_a_session_of_fewer_rings_than_there_are(machines: tuple[Machine, Machine]) -> None:
    session = start(*machines, RINGS - 1)
    assert session_key(image_of(RINGS), machines[0]) == session.key
    join(machines[0].rings[1])
    assert session_key(image_of(RINGS), machines[0]) == NO_KEY


@pytest.mark.parametrize("joined", [0, 1])
@pytest.mark.parametrize("number", range(RINGS))
@pytest.mark.parametrize("how", ["abort", "fault", "broken-ring", "restart", "lost"])
def test_whoever_ends_the_session_wipes_its_key(
    machines: tuple[Machine, Machine], how: str, number: int, joined: int
) -> None:
    """Before all have joined, on any ring, also one that has not joined: an ABORT, an exception, an impossible tail.

    A start ends the session on ring 0 and on a ring with a part in it.
    """
    session = start(*machines, RINGS)
    machine = machines[1]
    for ring in machine.rings[1 : 1 + joined]:
        join(ring)
    assert session_key(image_of(RINGS), machine) == session.key
    end(machine, number, how)
    if how in {"restart", "lost"} and number > joined:
        assert session_key(image_of(RINGS), machine) == session.key
        end(machine, 0, how)
    assert session_key(image_of(RINGS), machine) == NO_KEY
    assert found(image_of(RINGS), machine, session.key) == set()
    for other in {0, 1, 2} - {number}:
        assert sides_of(machine)[other].ask(Op.MH_OP_EXPORT) == Status.MH_WRONG_STATE
    assert found(image_of(RINGS), machine, *page_keys(session)) == set()


def end(machine: Machine, number: int, how: str) -> None:
    side = sides_of(machine)[number]
    match how:
        case "abort":
            assert side.ask(Op.MH_OP_ABORT) == Status.MH_DONE
        case "fault":
            crash(machine, number)
        case "broken-ring":
            side.ring.write(abi.mh_ring.fields["tail"].offset, b"\xff\xff\xff\x7f")
            with pytest.raises(HelperStopped, match="MH_RING_BROKEN"):
                side.ring.run()
        case "restart":
            restarted(machine, number)
        case "lost":
            at_work(side, number)
            restarted(machine, number, anew=True)


def crash(machine: Machine, number: int) -> None:
    vcpu = at_work(sides_of(machine)[number], number)
    vcpu.set_registers(replace(vcpu.get_registers(), rip=0xFFFF_9000_0000_0000))
    machine.mirror.run(number)
    assert machine.rings[number].header().state == abi.mh_ring_state.MH_RING_FAULT


def test_a_ring_that_has_finished_leaves_the_key_to_those_that_have_not_joined(
    machines: tuple[Machine, Machine],
) -> None:
    session = start(*machines, RINGS)
    finish_all([machines[0].rings[0]], [machines[1].rings[0]])
    for machine in machines:
        assert session_key(image_of(RINGS), machine) == session.key
        for ring in machine.rings[1:]:
            join(ring)
        assert session_key(image_of(RINGS), machine) == NO_KEY
    finish_all(machines[0].rings[1:], machines[1].rings[1:])
    for machine in machines:
        assert found(image_of(RINGS), machine, session.key, *page_keys(session)) == set()


# ---- thieves ----


def test_the_transport_key_and_all_that_was_sent_give_no_page_key(machines: tuple[Machine, Machine]) -> None:
    """What somebody can compute who has recorded both hellos and every packet, and then gets the transport key.

    With the secret of both scalars the same computation gives the keys: that alone is missing.
    """
    source, target = machines
    hellos = greet(source.rings[0]), greet(target.rings[0])
    true = overheard(SECRET, (helper_of(source), helper_of(target)), hellos, RINGS)
    begin(source.rings[0], Role.MH_ROLE_SOURCE, hellos[1], RINGS)
    packets = []
    for number, side in enumerate(sides_of(source)):
        if number:
            join(side.ring)
        packets.append(side.export(number * abi.MH_PAGE_BYTES).packet)
    shares = [bytes(abi.mh_hello(hello).share) for hello in hellos]
    both = bytes(a ^ b for a, b in zip(*shares, strict=True))
    guesses = {bytes(abi.MH_SHARE_BYTES), *shares, both, SECRET.key, *windows(b"".join((*hellos, *packets)))}
    keys = {session_keys(SECRET, *hellos, guess, RINGS).key for guess in guesses}
    assert len(keys) == len(guesses) > 20
    assert true.key not in keys
    assert true.identity not in {SessionKeys(key, true.protocol).identity for key in keys}
    assert bytes(abi.mh_packet(packets[0]).session) == true.identity


def windows(data: bytes, step: int = 8) -> set[bytes]:
    """Every 32 bytes of it that may be a key."""
    every = (data[at : at + 32] for at in range(0, len(data) - 31, step))
    return {window for window in every if len(set(window)) > 8}


def test_all_memory_after_the_end_gives_no_page_key() -> None:
    """A thief of a helper's memory in the clear, and of the transport key: whatever 32 bytes are taken for the secret
    of both scalars, for the session's key, or for a page key. Before all have joined, and before the end, the same
    search finds something."""
    machines = machine_of(RINGS, 1), machine_of(RINGS, 2)
    hellos = greet(machines[0].rings[0]), greet(machines[1].rings[0])
    true = overheard(SECRET, (helper_of(machines[0]), helper_of(machines[1])), hellos, RINGS)
    begin(machines[0].rings[0], Role.MH_ROLE_SOURCE, hellos[1], RINGS)
    begin(machines[1].rings[0], Role.MH_ROLE_TARGET, hellos[0], RINGS)
    assert all("session" in loot(machine, hellos, true) for machine in machines)
    for machine in machines:
        for ring in machine.rings[1:]:
            join(ring)
        assert loot(machine, hellos, true) == {"page"}
    finish_all(machines[0].rings, machines[1].rings)
    for machine in machines:
        assert loot(machine, hellos, true) == set()


def loot(machine: Machine, hellos: tuple[bytes, bytes], true: SessionKeys) -> set[str]:
    """What in the memory of the helper leads to page keys."""
    memory = windows(working_memory(image_of(RINGS), machine), step=4)
    as_shared = {session_keys(SECRET, *hellos, window, RINGS).key for window in memory}
    leads = {"page": memory & set(page_keys(true)), "session": memory & {true.key}, "shared": as_shared & {true.key}}
    return {name for name, lead in leads.items() if lead}
