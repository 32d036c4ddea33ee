"""vCPUs that are stopped between reading what they share and writing it, and others that come between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emulator_tests.helper.conftest import SECRET, Op, Status, at_work
from emulator_tests.helper.contention import last, stop_before_write
from emulator_tests.helper.rings import Rings, connected, image_of, machine_of, sides_of, start
from mh_abi import abi
from mh_builder.schemes.space import HELPER_VA
from mh_emulator.host.ring import HelperRefused, HelperStopped, Lane, Request
from mh_emulator.host.session import Batch, abort, begin, export_batch, greet, join, share
from mh_emulator.kvm.exits import Reason
from mh_emulator.peer import Peer

PAGE = abi.MH_PAGE_BYTES
WORD_PAGES = 64
"""Pages whose bits lie in one word of a map."""


@pytest.fixture
def rings() -> Rings:
    return connected(2)


def submit(ring: Lane, op: int, batch: Batch) -> None:
    ring.submit(batch.request(op).dumps(0))


def test_two_pages_of_one_word_are_claimed_at_once(rings: Rings) -> None:
    """Neither claim is lost: each page goes once in the epoch."""
    first, second = (side.ring for side in rings.sources)
    submit(second, Op.MH_OP_EXPORT, Batch(address=rings.pages[1], count=1))
    stop_before_write(rings.sources[1].machine, 1, 1)
    sealed = rings.sources[0].export(rings.pages[0])
    assert rings.keys(0).open(sealed.packet, sealed.data) == rings.page(0)
    second.run()
    assert last(second) == Status.MH_DONE
    for page in (0, 1):
        assert rings.sources[0].ask(Op.MH_OP_EXPORT, rings.pages[page]) == Status.MH_REPEATED
    first.check()


def test_a_claim_is_given_back_while_another_is_made(rings: Rings) -> None:
    """The page of a packet that was refused can be had again, the other one is taken."""
    sealed = rings.sources[0].export(rings.pages[0])
    ring = rings.targets[1].ring
    ring.put_sealed(0, sealed)
    submit(ring, Op.MH_OP_IMPORT, Batch(address=rings.pages[1], count=1))
    stop_before_write(rings.targets[1].machine, 1, 2)
    assert rings.targets[0].put(rings.pages[0], sealed) == Status.MH_DONE
    ring.run()
    assert last(ring) == Status.MH_WRONG_STREAM
    assert rings.targets[1].ask(Op.MH_OP_IMPORT, rings.pages[0]) == Status.MH_REPEATED
    assert rings.move(0, rings.pages[1]) == Status.MH_DONE


@pytest.mark.parametrize("flags", [0, abi.MH_BATCH_PRIVATE], ids=["shared", "private"])
def test_two_pages_of_one_word_change_hands_at_once(rings: Rings, flags: int) -> None:
    first, second = (side.ring for side in rings.sources)
    both = Batch(address=0, count=2, chunk=2)
    if flags:
        share(first, both)
    submit(second, Op.MH_OP_SHARE, Batch(address=PAGE, count=1, flags=flags))
    stop_before_write(rings.sources[1].machine, 1, 1)
    assert share(first, Batch(address=0, count=1, flags=flags))[0].status == Status.MH_DONE
    second.run()
    assert last(second) == Status.MH_DONE
    expected = Status.MH_DONE if flags else Status.MH_SHARED
    assert [rings.sources[0].ask(Op.MH_OP_EXPORT, page) for page in (0, PAGE)] == [expected] * 2


def test_a_run_over_two_words_changes_hands_and_is_refused_whole(rings: Rings) -> None:
    """Nothing of a chunk is claimed of which the last page is shared."""
    ring = rings.sources[0].ring
    run = Batch(address=(WORD_PAGES - 2) * PAGE, count=4, chunk=4)
    assert share(ring, run)[0].status == Status.MH_DONE
    share(ring, Batch(address=run.address, count=3, chunk=3, flags=abi.MH_BATCH_PRIVATE))
    _, results = export_batch(ring, run)
    assert {result.status for result in results} == {Status.MH_SHARED}
    share(ring, replace(run, flags=abi.MH_BATCH_PRIVATE))
    assert rings.sources[0].machine.read_helper(image_of(2).section(".bitmap").offset, 16) == bytes(16)
    _, results = export_batch(ring, run)
    assert {result.status for result in results} == {Status.MH_DONE}


def test_a_vcpu_that_wakes_on_a_ring_that_another_has(rings: Rings) -> None:
    """It halted there; now a second one is at work on the ring."""
    machine = rings.sources[0].machine
    second = machine.mirror.vm.create_vcpu()
    second.set_registers(machine.mirror.helper.registers(1))
    assert second.run(40).reason is Reason.LIMIT
    with pytest.raises(HelperStopped, match="MH_RING_CLAIMED"):
        rings.sources[1].ring.run()
    assert second.run().reason is Reason.HLT


def test_several_urgent_pages_go_between_two_chunks() -> None:
    rings = connected(1)
    ring = rings.sources[0].ring
    for page in (3, 4):
        submit(ring.urgent, Op.MH_OP_EXPORT, Batch(address=rings.pages[page], count=1))
    submit(ring, Op.MH_OP_EXPORT, Batch(address=rings.pages[0], count=2))
    ring.run()
    assert [ring.urgent.completion(number).status for number in range(2)] == [Status.MH_DONE] * 2
    assert last(ring) == Status.MH_DONE


def test_a_finished_ring_at_work_holds_no_session_back(rings: Rings) -> None:
    """It has no key any more, so that the others' session can end and the next one begin."""
    rings.sources[1].totals(Op.MH_OP_FINISH)
    vcpu = at_work(rings.sources[1], 1)
    abort(rings.sources[0].ring)
    greet(rings.sources[0].ring)
    begin(rings.sources[0].ring, abi.mh_role.MH_ROLE_SOURCE, Peer(SECRET).hello, 2)
    assert vcpu.run().reason is Reason.HLT
    join(rings.sources[1].ring)


def test_a_finished_ring_at_work_hides_no_other() -> None:
    """One behind it is still in the session that is over."""
    rings = connected(3)
    rings.sources[1].totals(Op.MH_OP_FINISH)
    vcpus = [at_work(rings.sources[number], number) for number in (1, 2)]
    ring = rings.sources[0].ring
    abort(ring)
    greet(ring)
    with pytest.raises(HelperRefused, match="MH_BUSY"):
        begin(ring, abi.mh_role.MH_ROLE_SOURCE, Peer(SECRET).hello, 3)
    assert vcpus[1].run().reason is Reason.HLT
    begin(ring, abi.mh_role.MH_ROLE_SOURCE, Peer(SECRET).hello, 3)


@pytest.mark.parametrize("what", [1, 2], ids=["pages", "rings"])
def test_rings_that_finish_at_once_are_both_counted(rings: Rings, what: int) -> None:
    """One is stopped while it counts its pages, or itself; the session is over when both have finished."""
    for number in range(2):
        rings.sources[number].export(rings.pages[number])
    first, second = (side.ring for side in rings.sources)
    second.submit(Request(Op.MH_OP_FINISH).dumps(0))
    stop_before_write(rings.sources[1].machine, 1, what)
    rings.sources[0].totals(Op.MH_OP_FINISH)
    second.run()
    answer = second.completion(second.completed - 1)
    assert (answer.status, answer.total) == (Status.MH_DONE, 2)
    greet(first)


def test_a_ring_that_joins_a_session_whose_key_is_gone() -> None:
    """By a fault in memory: nothing is ever sealed with what is left."""
    source, target = machine_of(2, 1), machine_of(2, 2)
    start(source, target, 2)
    record = image_of(2).symbol("session_record").value - HELPER_VA
    source.write_helper(record, bytes(abi.MH_KEY_BYTES))
    side = sides_of(source)[1]
    assert side.ask(Op.MH_OP_JOIN) == Status.MH_WRONG_STATE
    assert side.ask(Op.MH_OP_EXPORT) == Status.MH_WRONG_STATE
