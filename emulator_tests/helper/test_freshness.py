"""Nonces, shares, scalars and session identities: never one twice, whatever the host starts again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator_tests.helper.conftest import PAGES, SECRET, Op, Status, at_work, contents_of, launched
from emulator_tests.helper.memory import words_of
from emulator_tests.helper.oracle import exchange, scalar_of
from emulator_tests.helper.rings import image_of, restarted
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.parts import PARTS
from mh_emulator.host.machine import Machine
from mh_emulator.host.session import begin, greet
from mh_emulator.host.side import Side
from mh_emulator.peer import Peer

Role = abi.mh_role


def machine_with(seed: int) -> Machine:
    machine = launched(parse_image(image_of(1).data), PARTS["milan"], seed, contents_of(PAGES))
    machine.start_helper()
    return machine


def hello_again(_machine: Machine) -> None:
    """Nothing between: the next HELLO replaces this one."""


def abort(machine: Machine) -> None:
    assert Side(machine, machine.rings[0]).ask(Op.MH_OP_ABORT) == Status.MH_DONE


def session(machine: Machine) -> None:
    begin(machine.rings[0], Role.MH_ROLE_SOURCE, Peer(SECRET).hello)
    abort(machine)


def restart(machine: Machine) -> None:
    restarted(machine, 0)


def start_anew(machine: Machine) -> None:
    at_work(Side(machine, machine.rings[0]))
    restarted(machine, 0, anew=True)


def new_mirror(machine: Machine) -> None:
    machine.start_helper()


Between = Callable[[Machine], None]
BETWEEN: list[Between] = [hello_again, abort, session, restart, start_anew, new_mirror]


@pytest.mark.parametrize("between", BETWEEN)
def test_nothing_repeats_on_one_machine(between: Between) -> None:
    machine = machine_with(1)
    seen: set[bytes] = set()
    for _ in range(20):
        fields = abi.mh_hello(greet(machine.rings[0]))
        words = words_of(bytes(fields.nonce), bytes(fields.share), scalar_of(image_of(1), machine))
        assert len(words) == 12
        assert not seen & words
        seen |= words
        between(machine)


def test_nothing_repeats_on_two_machines_with_one_secret() -> None:
    """Also not where a launch is repeated on the same platform, with the same contents."""
    seen: set[bytes] = set()
    for seed in (1, 1, 2):
        machine = machine_with(seed)
        for _ in range(5):
            fields = abi.mh_hello(greet(machine.rings[0]))
            words = words_of(bytes(fields.nonce), bytes(fields.share), scalar_of(image_of(1), machine))
            assert not seen & words
            seen |= words


def test_sessions_with_one_hello_of_a_peer() -> None:
    """The host replays it at every START: neither key nor identity comes again, and so no page key."""
    machine, peer = machine_with(1), Peer(SECRET)
    identities, keys, data = set(), set(), set()
    for _ in range(10):
        hello = greet(machine.rings[0])
        shared = exchange(scalar_of(image_of(1), machine), peer.hello)
        begin(machine.rings[0], Role.MH_ROLE_SOURCE, peer.hello)
        sealed = Side(machine, machine.rings[0]).export(0)
        session = peer.keys(Role.MH_ROLE_TARGET, hello)
        assert session.stream(0).open(sealed.packet, sealed.data) == machine.read_guest(0)
        identities.add(session.identity)
        keys |= {session.key, shared}
        data.add(sealed.data)
        abort(machine)
    assert (len(identities), len(keys), len(data)) == (10, 20, 10)
