"""Sessions: no nonce, key or identity twice, whatever the host restarts or replays."""

from __future__ import annotations

import pytest

from emulator_tests.helper.conftest import SECRET, Pair, Status, facing
from mh_abi import abi
from mh_emulator.host.ring import HelperRefused
from mh_emulator.host.session import abort, begin, connect, finish, greet
from mh_emulator.host.side import Side
from mh_emulator.peer import Peer

Role = abi.mh_role


def test_nonces_are_fresh(pair: Pair) -> None:
    abort(pair.source.ring)
    hellos = [abi.mh_hello(greet(pair.source.ring)) for _ in range(20)]
    for name in ("nonce", "share"):
        values = {bytes(getattr(hello, name)) for hello in hellos}
        assert len(values) == 20
        assert all(len(set(value)) > 8 for value in values)


def test_replayed_start_makes_another_key(pair: Pair) -> None:
    """The host replays the peer's hello of an earlier session; ours has changed."""
    peer = Peer(SECRET)
    packets = []
    for _ in range(3):
        abort(pair.source.ring)
        keys = facing(pair.source, Role.MH_ROLE_SOURCE, peer)
        sealed = pair.source.export(pair.pages[0])
        assert keys.stream(0).open(sealed.packet, sealed.data) == pair.contents[: abi.MH_PAGE_BYTES]
        packets.append(sealed)
    assert len({sealed.data for sealed in packets}) == 3
    assert len({bytes(abi.mh_packet(sealed.packet).session) for sealed in packets}) == 3


def test_a_hello_serves_one_start(pair: Pair) -> None:
    abort(pair.source.ring)
    with pytest.raises(HelperRefused, match="MH_WRONG_STATE"):
        begin(pair.source.ring, Role.MH_ROLE_SOURCE, Peer(SECRET).hello)


def test_abort_and_retry(pair: Pair) -> None:
    old = pair.source.export(pair.pages[0])
    abort(pair.source.ring)
    abort(pair.target.ring)
    connect(pair.source.ring, pair.target.ring)
    assert pair.target.put(pair.pages[0], old) == Status.MH_WRONG_SESSION
    new = pair.source.export(pair.pages[0])
    assert pair.target.put(pair.pages[0], new) == Status.MH_DONE
    assert finish(pair.source.ring, pair.target.ring) == 1


def test_restarted_helper_has_no_session(pair: Pair) -> None:
    """The host starts the helper anew at its entry, with everything it knew still in memory."""
    side = Side(pair.source.machine, pair.source.machine.start_helper())
    assert side.ask(abi.mh_op.MH_OP_EXPORT, pair.pages[0]) == Status.MH_WRONG_STATE
    greet(side.ring)


def test_roles_may_be_exchanged_for_the_next_session(pair: Pair) -> None:
    """Back again: the target becomes the source."""
    sealed = pair.source.export(pair.pages[0])
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_DONE
    assert finish(pair.source.ring, pair.target.ring) == 1
    connect(pair.target.ring, pair.source.ring)
    back = pair.target.export(pair.pages[0])
    assert pair.source.put(pair.pages[0], back) == Status.MH_DONE
    assert finish(pair.target.ring, pair.source.ring) == 1


def test_both_in_one_role_exchange_nothing(pair: Pair) -> None:
    """A host that makes both sides sources, or both targets, gets packets that nobody takes."""
    abort(pair.source.ring)
    abort(pair.target.ring)
    first, second = greet(pair.source.ring), greet(pair.target.ring)
    begin(pair.source.ring, Role.MH_ROLE_SOURCE, second)
    begin(pair.target.ring, Role.MH_ROLE_SOURCE, first)
    one, other = pair.source.export(pair.pages[0]), pair.target.export(pair.pages[0])
    assert abi.mh_packet(one.packet).session != abi.mh_packet(other.packet).session


def test_hello_again_replaces_nonce_and_share(pair: Pair) -> None:
    abort(pair.source.ring)
    peer = Peer(SECRET)
    old = greet(pair.source.ring)
    new = greet(pair.source.ring)
    begin(pair.source.ring, Role.MH_ROLE_SOURCE, peer.hello)
    sealed = pair.source.export(pair.pages[0])
    before, now = (peer.keys(Role.MH_ROLE_TARGET, hello) for hello in (old, new))
    assert abi.mh_packet(sealed.packet).session == list(now.identity)
    assert before != now
