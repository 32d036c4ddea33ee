"""What happens between two chunks of a batch: on the urgent lane, on the other ring, and to the session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from emulator_tests.reference.scene import PAGE, URGENT, Kind, Op, Role, Scene
from mh_abi import abi
from mh_emulator.host.ring import HelperRefused, Request
from mh_emulator.host.session import Batch, begin, greet

Status = abi.mh_status
SOURCE, TARGET = Role.MH_ROLE_SOURCE.value, Role.MH_ROLE_TARGET.value

BATCH = Batch(address=0, count=3)
"""Of zeros: a chunk takes few instructions."""
FAR = Batch(address=16 * PAGE, count=1)
RESULTS = list[abi.mh_status]


def results(scene: Scene, number: int, batch: Batch) -> RESULTS:
    return [result.status for result in scene.both.rings[number].results(0, batch.pages)]


def during(scene: Scene, number: int, op: int, interlude: Callable[[], object]) -> RESULTS:
    """Statuses of the pages of `BATCH` on that ring, in whose middle `interlude` happens."""
    scene.both.rings[number].submit(BATCH.request(op).dumps(0))
    scene.both.run_with(number, interlude)
    return results(scene, number, BATCH)


def put_zeros(scene: Scene, number: int) -> None:
    host, lane = scene.lanes(number)
    for slot in range(BATCH.count):
        header = scene.header(number, lane, kind=Kind.MH_KIND_ZERO.value, length=PAGE, address=slot * PAGE)
        header.sequence += slot
        host.put_sealed(slot, scene.peer.seal(header, b""))


def submit_urgent(scene: Scene, number: int, op: int, batch: Batch = FAR) -> None:
    """It is served when the vCPU looks."""
    scene.lanes(number, URGENT)[0].submit(batch.request(op).dumps(1))


DONE = [Status.MH_DONE] * 3
ENDED = [Status.MH_DONE, Status.MH_ENDED, Status.MH_ENDED]


def test_an_urgent_page_overtakes_an_export() -> None:
    scene = Scene(SOURCE)
    assert during(scene, 0, Op.MH_OP_EXPORT, partial(submit_urgent, scene, 0, Op.MH_OP_EXPORT)) == DONE
    assert scene.ask(0, Op.MH_OP_FINISH).pages == 4


def test_an_urgent_page_takes_one_of_the_batch() -> None:
    scene = Scene(SOURCE)
    last = Batch(address=2 * PAGE, count=1)
    assert during(scene, 0, Op.MH_OP_EXPORT, partial(submit_urgent, scene, 0, Op.MH_OP_EXPORT, last)) == [
        Status.MH_DONE, Status.MH_DONE, Status.MH_REPEATED,
    ]  # fmt: skip


def test_an_urgent_page_overtakes_an_import() -> None:
    scene = Scene(TARGET)
    put_zeros(scene, 0)
    scene.put(0, FAR, URGENT)
    assert during(scene, 0, Op.MH_OP_IMPORT, partial(submit_urgent, scene, 0, Op.MH_OP_IMPORT)) == DONE


def test_a_wrong_tag_on_the_urgent_lane_ends_the_batch() -> None:
    scene = Scene(TARGET)
    put_zeros(scene, 0)
    scene.put(0, FAR, URGENT)
    place = abi.MH_URGENT_PACKETS + abi.MH_PACKET_AAD_BYTES
    scene.both.rings[0].write(place, bytes(abi.MH_TAG_BYTES))
    assert during(scene, 0, Op.MH_OP_IMPORT, partial(submit_urgent, scene, 0, Op.MH_OP_IMPORT)) == ENDED


@pytest.mark.parametrize("op", [Op.MH_OP_EXPORT, Op.MH_OP_SHARE])
def test_another_ring_ends_the_session(op: abi.mh_op) -> None:
    """Which is nothing to SHARE."""
    scene = Scene(SOURCE, 2)
    expected = ENDED if op == Op.MH_OP_EXPORT else DONE
    assert during(scene, 1, op, partial(scene.ask, 0, Op.MH_OP_ABORT)) == expected


def test_another_ring_moves_a_page_of_the_batch() -> None:
    scene = Scene(SOURCE, 2)
    last = Batch(address=2 * PAGE, count=1)
    assert during(scene, 1, Op.MH_OP_EXPORT, partial(scene.move, 0, Op.MH_OP_EXPORT, last)) == [
        Status.MH_DONE, Status.MH_DONE, Status.MH_REPEATED,
    ]  # fmt: skip


def test_another_ring_ends_its_epoch() -> None:
    scene = Scene(SOURCE, 2)
    assert during(scene, 1, Op.MH_OP_EXPORT, partial(scene.ask, 0, Op.MH_OP_EPOCH)) == DONE
    assert scene.ask(1, Op.MH_OP_EPOCH).epoch == 1


def test_no_session_begins_while_a_ring_works_in_the_one_before() -> None:
    scene = Scene(SOURCE, 2)

    def start() -> None:
        scene.ask(0, Op.MH_OP_ABORT)
        ours = greet(scene.both.rings[0])
        with pytest.raises(HelperRefused, match="MH_BUSY"):
            begin(scene.both.rings[0], SOURCE, scene.peer.greet())
        assert ours

    assert during(scene, 1, Op.MH_OP_EXPORT, start) == ENDED
    assert scene.both.rings[0].serve([Request(Op.MH_OP_START, role=SOURCE, count=1)])[0].status == Status.MH_DONE


def test_a_batch_of_no_session_lets_one_begin() -> None:
    """SHARE works in none."""
    scene = Scene(SOURCE, 1)
    scene.ask(0, Op.MH_OP_ABORT)
    assert during(scene, 1, Op.MH_OP_SHARE, partial(scene.connect, SOURCE)) == DONE


def test_a_batch_of_a_ring_that_has_finished_lets_a_session_begin() -> None:
    """It has not noticed the end of the one before."""
    scene = Scene(SOURCE, 2)
    assert scene.ask(1, Op.MH_OP_FINISH).status == Status.MH_DONE

    def start() -> None:
        scene.ask(0, Op.MH_OP_ABORT)
        scene.connect(SOURCE)

    assert during(scene, 1, Op.MH_OP_SHARE, start) == DONE
    assert scene.ask(0, Op.MH_OP_FINISH).status == Status.MH_DONE


def test_an_impossible_tail_of_the_urgent_lane_breaks_the_ring() -> None:
    scene = Scene(SOURCE, 2)

    def jump() -> None:
        tail = scene.lanes(1, URGENT)[1].head + abi.MH_URGENT_ENTRIES + 1
        scene.both.rings[1].write(abi.mh_ring.fields["urgent_tail"].offset, tail.to_bytes(4, "little"))

    during(scene, 1, Op.MH_OP_EXPORT, jump)
    assert scene.both.rings[1].header().state == abi.mh_ring_state.MH_RING_BROKEN
    assert scene.ask(0, Op.MH_OP_FINISH).status == Status.MH_WRONG_STATE
