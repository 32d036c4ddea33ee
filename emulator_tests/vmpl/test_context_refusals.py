"""What CONTEXT refuses before it asks for anything: fields, rings, states, no randomness."""

from __future__ import annotations

from typing import Any

import pytest

from emulator_tests.vmpl.context import absorb, export, leaving, messages
from emulator_tests.vmpl.pairs import Op, Role, Status, ask, connected, next_epoch, pair
from mh_abi import abi
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.host.ring import Lane
from mh_emulator.host.session import begin, finish, greet
from mh_emulator.host.snp_context import ImageMachine
from mh_emulator.host.snp_migration import Pair

FULL = abi.MH_RING_SLOTS
UNUSED: dict[str, dict[str, int]] = {
    "role": {"role": 1},
    "no-room-behind": {"slot": FULL - abi.MH_MESSAGE_PAGES + 1},
    "slot-beyond": {"slot": FULL},
    "count": {"count": 1},
    "address": {"address": 1 << 40},
    "chunk": {"chunk": 1},
    "flags": {"flags": 1},
}


@pytest.fixture(scope="module")
def untouched() -> Pair:
    """A pair that refuses all it is asked here."""
    return connected(vcpus=2)


def raw(lane: Lane, fields: dict[str, Any]) -> abi.mh_status:
    number = lane.completed
    lane.submit(abi.mh_submission(op=Op.MH_OP_CONTEXT, **fields).dumps())
    lane.run()
    return lane.completion(number).status


@pytest.mark.parametrize("fields", UNUSED.values(), ids=UNUSED)
def test_fields(untouched: Pair, fields: dict[str, int]) -> None:
    assert raw(untouched.source.rings[0], fields) == Status.MH_BAD_ENTRY


def test_lanes_and_rings(untouched: Pair) -> None:
    assert raw(untouched.source.rings[0].urgent, {}) == Status.MH_WRONG_RING
    assert raw(untouched.source.rings[1], {}) == Status.MH_WRONG_RING


def test_states() -> None:
    both = pair(kind=ImageMachine)
    assert export(both) == Status.MH_WRONG_STATE
    hellos = [greet(side.rings[0]) for side in (both.source, both.target)]
    assert export(both) == Status.MH_WRONG_STATE
    begin(both.source.rings[0], Role.MH_ROLE_SOURCE, hellos[1])
    begin(both.target.rings[0], Role.MH_ROLE_TARGET, hellos[0])
    next_epoch(both)
    assert export(both) == Status.MH_DONE
    assert absorb(both) == Status.MH_DONE
    finish(both.source.rings[0], both.target.rings[0])
    assert export(both) == Status.MH_WRONG_STATE


def test_not_between_the_ends_of_an_epoch() -> None:
    both = leaving(vcpus=2)
    assert ask(both.source, Op.MH_OP_EPOCH) == Status.MH_DONE
    assert export(both) == Status.MH_EPOCH_PENDING


@pytest.mark.parametrize("is_target", [False, True])
def test_without_randomness_nothing_is_asked(*, is_target: bool) -> None:
    """For the mask; the same can be asked for again, the guest is still here."""
    both = leaving()
    if is_target:
        assert export(both) == Status.MH_DONE
    side = both.target if is_target else both.source
    side.platform.generator.fault = FAULTS["zero"]
    before = messages(side)
    assert (absorb(both) if is_target else export(both)) == Status.MH_NO_ENTROPY
    assert messages(side) == before
    side.platform.generator.fault = None
    assert (absorb(both) if is_target else export(both)) == Status.MH_DONE
