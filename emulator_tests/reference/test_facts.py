"""What `docs/protocol.md` says of corners, on the linked helper and on the reference."""

from __future__ import annotations

import pytest

from emulator_tests.reference.correspondent import Damage
from emulator_tests.reference.scene import PAGE, URGENT, Kind, Op, Role, Scene
from emulator_tests.reference.terms import PLAIN, RAM_LIMIT, STRICT
from mh_abi import abi
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.host.ring import HelperRefused, Request
from mh_emulator.host.session import Batch, begin, greet

Status = abi.mh_status

SOURCE, TARGET = Role.MH_ROLE_SOURCE.value, Role.MH_ROLE_TARGET.value
NOTHING = 0
"""An operation that there is not: its completion says what the ring has counted."""
TWO_PAGES = Batch(address=0, count=2, chunk=2)
WORD = 64 * PAGE
"""Bytes of RAM that one word of a map is about."""


def counted(scene: Scene, number: int) -> tuple[int, int]:
    """Pages and epoch in a completion of that ring."""
    answer = scene.ask(number, NOTHING)
    return answer.pages, answer.epoch


def moved_in_two_epochs() -> Scene:
    """A source of two rings in epoch 1, of which each has moved two pages."""
    scene = Scene(SOURCE, 2)
    for number in range(2):
        assert scene.move(number, Op.MH_OP_EXPORT, Batch(address=number * WORD, count=2)).status == Status.MH_DONE
        assert scene.ask(number, Op.MH_OP_EPOCH).status == Status.MH_DONE
    return scene


def test_counts_stay_on_the_ring_that_finishes_last() -> None:
    scene = moved_in_two_epochs()
    assert scene.ask(0, Op.MH_OP_FINISH).total == 2
    assert counted(scene, 0) == (2, 1)
    assert scene.ask(1, Op.MH_OP_FINISH).total == 4
    assert counted(scene, 0) == (0, 0)
    assert counted(scene, 1) == (2, 1)


@pytest.mark.parametrize("ends", [True, False], ids=["after-the-session", "in-the-session"])
def test_counts_outlive_a_start(ends: bool) -> None:
    """Of the ring that finishes last, and of one with a part in the session."""
    scene = moved_in_two_epochs()
    for number in range(2 if ends else 0):
        scene.ask(number, Op.MH_OP_FINISH)
    scene.both.restart(1)
    assert counted(scene, 0) == (0, 0)
    assert counted(scene, 1) == (2, 1)
    scene.connect(SOURCE, 2)
    assert counted(scene, 1) == (0, 0)


@pytest.mark.parametrize("number", range(2))
def test_counts_are_gone_when_a_session_is_ended(number: int) -> None:
    """By whatever ring."""
    scene = moved_in_two_epochs()
    assert scene.ask(number, Op.MH_OP_ABORT).pages == 0
    assert [counted(scene, ring) for ring in range(2)] == [(0, 0)] * 2


@pytest.mark.parametrize(
    ("shared", "expected"), [(64, Status.MH_REPEATED), (63, Status.MH_SHARED)], ids=["next-word", "one-word"]
)
def test_the_first_word_of_the_maps_decides(shared: int, expected: abi.mh_status) -> None:
    """A chunk with a page that has moved, and another that is shared."""
    scene = Scene(SOURCE)
    assert scene.move(0, Op.MH_OP_EXPORT, Batch(address=62 * PAGE, count=1)).status == Status.MH_DONE
    assert scene.move(0, Op.MH_OP_SHARE, Batch(address=shared * PAGE, count=1)).status == Status.MH_DONE
    assert scene.move(0, Op.MH_OP_EXPORT, Batch(address=62 * PAGE, count=3, chunk=3)).status == expected


def test_a_new_session_forgets_what_each_ring_has_moved() -> None:
    scene = moved_in_two_epochs()
    scene.ask(0, Op.MH_OP_ABORT)
    scene.connect(SOURCE)
    assert scene.ask(0, Op.MH_OP_RESUME).status == Status.MH_DONE
    for number in range(2):
        again = Batch(address=number * WORD, count=2, chunk=2)
        assert scene.move(0, Op.MH_OP_EXPORT, again).status == Status.MH_DONE


def test_a_refused_chunk_takes_no_page() -> None:
    """Whose first pages are of another word of the maps than the one that is refused."""
    scene = Scene(SOURCE)
    assert scene.move(0, Op.MH_OP_SHARE, Batch(address=64 * PAGE, count=1)).status == Status.MH_DONE
    assert scene.move(0, Op.MH_OP_EXPORT, Batch(address=62 * PAGE, count=3, chunk=3)).status == Status.MH_SHARED
    assert scene.move(0, Op.MH_OP_EXPORT, Batch(address=62 * PAGE, count=2, chunk=2)).status == Status.MH_DONE


@pytest.mark.parametrize("kind", [Kind.MH_KIND_EPOCH, Kind.MH_KIND_END])
def test_totals_are_compared_before_the_tag(kind: abi.mh_kind) -> None:
    """So a host ends a session with a packet that no peer has made, as it can with ABORT."""
    scene = Scene(TARGET)
    host, lane = scene.lanes(0)
    header = scene.header(0, lane, kind=kind.value, address=1)
    host.put_sealed(0, scene.peer.seal(header, b"", Damage({"tag": 1}, is_meant=False)))
    op = Op.MH_OP_EPOCH if kind == Kind.MH_KIND_EPOCH else Op.MH_OP_FINISH
    assert scene.ask(0, op).status == Status.MH_BAD_TOTALS
    assert scene.ask(0, Op.MH_OP_RESUME).status == Status.MH_WRONG_STATE


def test_shared_pages_outlive_sessions_and_starts() -> None:
    scene = Scene(SOURCE)
    assert scene.move(0, Op.MH_OP_SHARE, TWO_PAGES).status == Status.MH_DONE
    assert scene.ask(0, Op.MH_OP_ABORT).status == Status.MH_DONE
    scene.connect(SOURCE)
    assert scene.move(0, Op.MH_OP_EXPORT, TWO_PAGES).status == Status.MH_SHARED
    scene.both.restart(0)
    scene.connect(SOURCE)
    assert scene.move(0, Op.MH_OP_EXPORT, TWO_PAGES).status == Status.MH_SHARED
    private = Batch(address=0, count=2, chunk=2, flags=abi.MH_BATCH_PRIVATE)
    assert scene.move(0, Op.MH_OP_SHARE, private).status == Status.MH_DONE
    assert scene.move(0, Op.MH_OP_EXPORT, TWO_PAGES).status == Status.MH_DONE


def test_a_start_that_is_refused_leaves_our_hello() -> None:
    """But for a share that gives no secret: with it our scalar has been used."""
    scene = Scene(SOURCE)
    scene.ask(0, Op.MH_OP_ABORT)
    ring = scene.both.rings[0]
    ours = greet(ring)
    with pytest.raises(HelperRefused, match="MH_BAD_HELLO"):
        begin(ring, SOURCE, scene.peer.greet(Damage({"tag": 1}, is_meant=False)))
    begin(ring, SOURCE, scene.peer.greet())
    scene.peer.begin(ours, SOURCE, 1)
    assert scene.ask(0, Op.MH_OP_ABORT).status == Status.MH_DONE
    greet(ring)
    with pytest.raises(HelperRefused, match="MH_BAD_SHARE"):
        begin(ring, SOURCE, scene.peer.greet_without_share())
    with pytest.raises(HelperRefused, match="MH_WRONG_STATE"):
        begin(ring, SOURCE, scene.peer.greet())


def test_no_epoch_ends_when_a_ring_has_finished() -> None:
    """The other one waits for it, until the session is ended."""
    scene = Scene(SOURCE, 2)
    assert scene.ask(0, Op.MH_OP_FINISH).status == Status.MH_DONE
    assert scene.ask(1, Op.MH_OP_EPOCH).status == Status.MH_DONE
    assert scene.ask(1, Op.MH_OP_FINISH).status == Status.MH_EPOCH_PENDING
    assert scene.ask(0, Op.MH_OP_ABORT).status == Status.MH_DONE
    assert scene.ask(1, Op.MH_OP_FINISH).status == Status.MH_WRONG_STATE


def test_a_ring_without_a_part_ends_the_session() -> None:
    scene = Scene(SOURCE, 1)
    assert scene.ask(1, Op.MH_OP_ABORT).status == Status.MH_DONE
    assert scene.both.rings[0].serve([Request(Op.MH_OP_FINISH)])[0].status == Status.MH_WRONG_STATE


def test_a_start_of_a_ring_ends_a_session_that_it_has_no_part_in() -> None:
    """Where the ring has had one in an earlier session, and has not noticed its end; else it ends none."""
    scene = Scene(SOURCE, 2)
    scene.ask(0, Op.MH_OP_ABORT)
    scene.connect(SOURCE)
    scene.both.restart(1)
    assert scene.ask(0, Op.MH_OP_FINISH).status == Status.MH_WRONG_STATE
    scene.ask(0, Op.MH_OP_ABORT)
    scene.connect(SOURCE)
    scene.both.restart(1)
    assert scene.ask(0, Op.MH_OP_FINISH).status == Status.MH_DONE


def test_a_hello_that_fails_takes_the_one_before_with_it() -> None:
    scene = Scene(SOURCE)
    scene.ask(0, Op.MH_OP_ABORT)
    ring = scene.both.rings[0]
    greet(ring)
    scene.both.break_generators(FAULTS["stuck"])
    assert scene.ask(0, Op.MH_OP_HELLO).status == Status.MH_NO_ENTROPY
    scene.both.break_generators(None)
    with pytest.raises(HelperRefused, match="MH_WRONG_STATE"):
        begin(ring, SOURCE, scene.peer.greet())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (PAGE + 1, [Status.MH_NOT_ALIGNED] * 3),
        (RAM_LIMIT + 1, [Status.MH_NOT_ALIGNED] * 3),
        ((1 << 64) - PAGE, [Status.MH_OUT_OF_RANGE] * 3),
        (RAM_LIMIT - PAGE, [Status.MH_DONE, Status.MH_OUT_OF_RANGE, Status.MH_OUT_OF_RANGE]),
    ],
    ids=["between-pages", "beyond-and-between", "wraps", "reaches-beyond"],
)
def test_a_run_is_refused_page_by_page(address: int, expected: list[abi.mh_status]) -> None:
    scene = Scene(SOURCE)
    scene.move(0, Op.MH_OP_EXPORT, Batch(address=address, count=3))
    assert [result.status for result in scene.both.rings[0].results(0, 3)] == expected


def test_a_chunk_has_the_status_of_its_first_wrong_page() -> None:
    """Its last page is out of range, which comes before MH_PROTECTED in the order of the checks."""
    scene = Scene(SOURCE)
    start = PLAIN.protected.stop - PAGE
    pages = (RAM_LIMIT - start) // PAGE + 1
    chunk = Batch(address=start, count=pages, chunk=pages)
    assert scene.move(0, Op.MH_OP_EXPORT, chunk).status == Status.MH_PROTECTED


def test_a_strict_source_finishes_as_it_was_exported() -> None:
    """Each ring looks at what it exported last itself; in another epoch the page can be exported again."""
    scene = Scene(SOURCE, 2, STRICT)
    for number in range(2):
        assert scene.move(number, Op.MH_OP_EXPORT, Batch(address=number * PAGE, count=1)).status == Status.MH_DONE
        assert scene.ask(number, Op.MH_OP_EPOCH).status == Status.MH_DONE
    vmsa = Batch(address=PAGE, count=1, flags=abi.MH_BATCH_VMSA)
    assert scene.move(1, Op.MH_OP_EXPORT, vmsa, URGENT).status == Status.MH_DONE
    scene.both.guest_writes(0, b"x" * PAGE)
    assert scene.ask(0, Op.MH_OP_FINISH).status == Status.MH_CHANGED
    assert scene.ask(1, Op.MH_OP_FINISH).status == Status.MH_DONE
    assert scene.move(0, Op.MH_OP_EXPORT, Batch(address=0, count=2, chunk=2)).status == Status.MH_NOT_STRICT
    assert scene.move(0, Op.MH_OP_EXPORT, Batch(address=0, count=1)).status == Status.MH_DONE
    assert scene.ask(0, Op.MH_OP_FINISH).status == Status.MH_DONE
