"""RESUME: what has moved in a session stays as it is once the guest may run at the target."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from emulator_tests.helper.conftest import Op, Pair, Status
from emulator_tests.helper.rings import RINGS, Rings, bulk, connected
from mh_abi import abi
from mh_emulator.host.ring import Sealed
from mh_emulator.host.session import Batch, abort, connect, end_epoch, finish_all, resume
from mh_emulator.host.side import Side

SIDES = ["sources", "targets"]
LOW, HIGH = 0, 100 * abi.MH_PAGE_BYTES
"""Pages of different words of the maps."""


@pytest.fixture
def rings() -> Rings:
    return connected()


def next_epoch(rings: Rings) -> None:
    for source, target in zip(*bulk(rings), strict=True):
        end_epoch(source, target)


def forged(rings: Rings, number: int, page: int, sequence: int, epoch: int) -> abi.mh_status:
    """Import a page that an honest source would not have made a packet of."""
    sealed = Sealed(*rings.keys(number).seal(b"old!" * 1024, address=page, sequence=sequence, epoch=epoch))
    return rings.targets[number].put(page, sealed)


def test_a_page_moves_in_every_epoch_until_then(rings: Rings) -> None:
    page, other = rings.pages[:2]
    for epoch in range(3):
        assert rings.move(epoch, page) == Status.MH_DONE
        next_epoch(rings)
    for side in (*rings.sources, *rings.targets):
        resume([side.ring])
    for number in range(RINGS):
        assert rings.sources[number].ask(Op.MH_OP_EXPORT, page) == Status.MH_REPEATED
        assert rings.targets[number].ask(Op.MH_OP_IMPORT, page) == Status.MH_REPEATED
    assert rings.move(1, other) == Status.MH_DONE
    assert rings.target_page(other) == rings.page(1)
    assert finish_all(*bulk(rings)) == 4


@pytest.mark.parametrize("number", range(RINGS))
def test_a_target_that_was_told_takes_no_page_again(rings: Rings, number: int) -> None:
    """Whatever its host has the source do: the packet is right in every way, on any ring, in any later epoch."""
    page = rings.pages[0]
    assert rings.move(0, page) == Status.MH_DONE
    resume([side.ring for side in rings.targets])
    for epoch in range(1, 4):
        next_epoch(rings)
        before = rings.target_page(page)
        sequence = 1 + (1 if number == 0 else 0) + epoch - 1
        assert forged(rings, number, page, sequence, epoch) == Status.MH_REPEATED
        assert rings.target_page(page) == before == rings.page(0)


@pytest.mark.parametrize("side_name", SIDES)
def test_each_ring_is_told_for_itself(rings: Rings, side_name: str) -> None:
    page = rings.pages[0]
    assert rings.move(0, page) == Status.MH_DONE
    next_epoch(rings)
    sides: list[Side] = getattr(rings, side_name)
    op = Op.MH_OP_EXPORT if side_name == "sources" else Op.MH_OP_IMPORT
    resume([sides[1].ring])
    assert sides[1].ask(op, page) == Status.MH_REPEATED
    # The others are told later; an import fails for want of a packet then, no longer for the page.
    assert sides[2].ask(op, page) in {Status.MH_DONE, Status.MH_BAD_PACKET}
    resume([sides[2].ring])
    assert sides[2].ask(op, page) == Status.MH_REPEATED


def test_both_lanes_of_a_ring_are_told(pair: Pair) -> None:
    page = pair.pages[0]
    assert pair.target.put(page, pair.source.export(page)) == Status.MH_DONE
    end_epoch(pair.source.ring, pair.target.ring)
    resume([pair.source.ring, pair.target.ring])
    batch = Batch(address=page, count=1)
    assert batch.submit(pair.source.ring.urgent, Op.MH_OP_EXPORT).status == Status.MH_REPEATED
    assert batch.submit(pair.target.ring.urgent, Op.MH_OP_IMPORT).status == Status.MH_REPEATED


def test_pages_of_the_epoch_before_and_of_this_one(pair: Pair) -> None:
    """A refused chunk is given back, so a page of it that never moved still moves."""
    moved, fresh = 0, abi.MH_PAGE_BYTES
    pair.source.export(moved)
    assert pair.source.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
    resume([pair.source.ring])
    both = Batch(address=moved, count=2, chunk=2)
    assert both.submit(pair.source.ring, Op.MH_OP_EXPORT).status == Status.MH_REPEATED
    assert pair.source.ask(Op.MH_OP_EXPORT, fresh) == Status.MH_DONE
    for _ in range(3):
        assert pair.source.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
        for page in (moved, fresh):
            assert pair.source.ask(Op.MH_OP_EXPORT, page) == Status.MH_REPEATED


def test_resume_again_changes_nothing(pair: Pair) -> None:
    page = pair.pages[0]
    resume([pair.source.ring] * 3)
    pair.source.export(page)
    assert pair.source.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
    assert pair.source.ask(Op.MH_OP_EXPORT, page) == Status.MH_REPEATED


@pytest.mark.parametrize("how", ["finish", "abort", "restart"])
def test_a_new_session_owes_nothing_to_the_one_before(pair: Pair, how: str) -> None:
    page = pair.pages[0]
    assert pair.target.put(page, pair.source.export(page)) == Status.MH_DONE
    end_epoch(pair.source.ring, pair.target.ring)
    resume([pair.source.ring, pair.target.ring])
    match how:
        case "finish":
            finish_all([pair.source.ring], [pair.target.ring])
        case "abort":
            abort(pair.source.ring)
            abort(pair.target.ring)
        case "restart":
            for side in (pair.source, pair.target):
                side.ring = side.machine.start_helper()
    connect(pair.source.ring, pair.target.ring)
    for _ in range(2):
        assert pair.target.put(page, pair.source.export(page)) == Status.MH_DONE
        end_epoch(pair.source.ring, pair.target.ring)


def test_resume_while_the_epoch_is_pending(rings: Rings) -> None:
    """A ring that waits for others is told as well."""
    page = rings.pages[0]
    assert rings.move(0, page) == Status.MH_DONE
    sources, targets = bulk(rings)
    end_epoch(sources[0], targets[0])
    resume([sources[0], targets[0]])
    for number in (1, 2):
        end_epoch(sources[number], targets[number])
    assert rings.sources[0].ask(Op.MH_OP_EXPORT, page) == Status.MH_REPEATED


@pytest.mark.parametrize("epochs", [(LOW, HIGH), (HIGH, LOW), (LOW, None), (HIGH, None)])
def test_a_new_session_forgets_what_each_epoch_moved(pair: Pair, epochs: Sequence[int | None]) -> None:
    """In whichever words of the map, and in epochs without a page: a guest that runs gets all of it."""
    for page in epochs:
        if page is not None:
            assert pair.source.ask(Op.MH_OP_EXPORT, page) == Status.MH_DONE
        assert pair.source.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
    abort(pair.source.ring)
    abort(pair.target.ring)
    connect(pair.source.ring, pair.target.ring)
    resume([pair.source.ring])
    for page in (LOW, HIGH):
        assert pair.source.ask(Op.MH_OP_EXPORT, page) == Status.MH_DONE


def test_a_ring_that_has_finished_is_told_nothing(rings: Rings) -> None:
    """The others have not, so that the session is alive."""
    rings.sources[1].totals(Op.MH_OP_FINISH)
    assert rings.sources[1].ask(Op.MH_OP_RESUME) == Status.MH_WRONG_STATE
    assert rings.sources[0].ask(Op.MH_OP_RESUME) == Status.MH_DONE
