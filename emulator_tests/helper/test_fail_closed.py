"""The first wrong tag ends the session, on all rings of its side: a forgery costs one."""

from __future__ import annotations

import pytest

from emulator_tests.helper.conftest import Op, Pair, Status
from emulator_tests.helper.rings import RINGS, Rings, connected
from mh_abi import abi
from mh_emulator.host.ring import HelperRefused, Lane, Request, Sealed
from mh_emulator.host.session import Batch, abort, connect, export_batch, finish, import_batch

PAGE = abi.MH_PAGE_BYTES


def forged(sealed: Sealed) -> Sealed:
    """With one bit of its tag flipped."""
    return Sealed(sealed.packet[:-1] + bytes([sealed.packet[-1] ^ 1]), sealed.data)


@pytest.fixture
def rings() -> Rings:
    return connected()


def lanes(pair: Pair, *, urgent: bool) -> tuple[Lane, Lane]:
    source, target = pair.source.ring, pair.target.ring
    return (source.urgent, target.urgent) if urgent else (source, target)


@pytest.mark.parametrize("urgent", [False, True], ids=["bulk", "urgent"])
def test_the_true_packet_comes_too_late(pair: Pair, *, urgent: bool) -> None:
    source, target = lanes(pair, urgent=urgent)
    batch = Batch(listed=(pair.pages[0],))
    (sealed,), _ = export_batch(source, batch)
    before = pair.target_page(pair.pages[0])
    assert [result.status for result in import_batch(target, batch, [forged(sealed)])] == [Status.MH_BAD_TAG]
    with pytest.raises(HelperRefused, match="MH_WRONG_STATE"):
        import_batch(target, batch, [sealed])
    assert pair.target_page(pair.pages[0]) == before


def test_the_rest_of_the_batch_is_not_looked_at(pair: Pair) -> None:
    batch = Batch(listed=tuple(pair.pages[:4]))
    packets, _ = export_batch(pair.source.ring, batch)
    packets[1] = forged(packets[1])
    statuses = [result.status for result in import_batch(pair.target.ring, batch, packets)]
    assert statuses == [Status.MH_DONE, Status.MH_BAD_TAG, Status.MH_SKIPPED, Status.MH_SKIPPED]


def test_an_urgent_forgery_ends_the_bulk_batch_at_work(pair: Pair) -> None:
    """It is looked at between two chunks: what comes behind it belongs to no session."""
    batch = Batch(listed=tuple(pair.pages[1:5]))
    packets, _ = export_batch(pair.source.ring, batch)
    (urgent,), _ = export_batch(pair.source.ring.urgent, Batch(listed=(pair.pages[0],)))
    target = pair.target.ring
    target.urgent.put_sealed(0, forged(urgent))
    target.urgent.put_list(0, (pair.pages[0],))
    for slot, sealed in zip(batch.packet_slots(), packets, strict=True):
        target.put_sealed(slot, sealed)
    target.put_list(0, batch.listed)
    target.submit(batch.request(Op.MH_OP_IMPORT).dumps(0))
    vcpu = pair.target.machine.mirror.vcpu
    last = pair.target_page(pair.pages[4])
    while pair.target_page(pair.pages[1]) != pair.contents[PAGE : 2 * PAGE]:
        vcpu.run(50)
    target.urgent.submit(Batch(listed=(pair.pages[0],)).request(Op.MH_OP_IMPORT).dumps(0))
    vcpu.run()
    assert target.urgent.results(0, 1)[0].status == Status.MH_BAD_TAG
    statuses = [result.status for result in target.results(0, 4)]
    assert statuses[0] == Status.MH_DONE
    assert statuses[-1] == Status.MH_ENDED
    assert pair.target_page(pair.pages[4]) == last


@pytest.mark.parametrize("op", [Op.MH_OP_EPOCH, Op.MH_OP_FINISH])
def test_a_forged_end_packet(pair: Pair, op: int) -> None:
    assert pair.source.ask(op) == Status.MH_DONE
    sealed = pair.source.ring.take_sealed(0)
    assert pair.target.ask(op, sealed=forged(sealed)) == Status.MH_BAD_TAG
    assert pair.target.ask(op, sealed=sealed) == Status.MH_WRONG_STATE


@pytest.mark.parametrize("number", range(RINGS))
def test_all_rings_lose_the_session(rings: Rings, number: int) -> None:
    sealed = rings.sources[number].export(rings.pages[0])
    others = {other: rings.sources[other].export(rings.pages[1 + other]) for other in range(RINGS)}
    before = [rings.target_page(page) for page in rings.pages]
    assert rings.targets[number].put(rings.pages[0], forged(sealed)) == Status.MH_BAD_TAG
    for other, packet in others.items():
        assert rings.targets[other].put(rings.pages[1 + other], packet) == Status.MH_WRONG_STATE
    assert [rings.target_page(page) for page in rings.pages] == before


def test_the_other_side_knows_nothing_of_it(pair: Pair) -> None:
    """The host tells it, or does not: its keys open nothing there any more."""
    sealed = pair.source.export(pair.pages[0])
    assert pair.target.put(pair.pages[0], forged(sealed)) == Status.MH_BAD_TAG
    assert pair.source.ask(Op.MH_OP_EXPORT, pair.pages[1]) == Status.MH_DONE


def test_a_new_session_needs_new_hellos(pair: Pair) -> None:
    sealed = pair.source.export(pair.pages[0])
    assert pair.target.put(pair.pages[0], forged(sealed)) == Status.MH_BAD_TAG
    again = Request(Op.MH_OP_START, role=abi.mh_role.MH_ROLE_TARGET, count=1)
    assert pair.target.ring.serve([again])[0].status == Status.MH_WRONG_STATE
    abort(pair.source.ring)
    connect(pair.source.ring, pair.target.ring)
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_WRONG_SESSION
    assert pair.target.put(pair.pages[0], pair.source.export(pair.pages[0])) == Status.MH_DONE
    assert finish(pair.source.ring, pair.target.ring) == 1


def test_what_only_looks_wrong_costs_nothing(pair: Pair) -> None:
    """A packet that is refused before its tag is looked at is no forgery: a host may mix packets up."""
    first, second = pair.source.export(pair.pages[0]), pair.source.export(pair.pages[1])
    assert pair.target.put(pair.pages[1], second) == Status.MH_OUT_OF_ORDER
    assert pair.target.put(pair.pages[1], first) == Status.MH_WRONG_ADDRESS
    assert pair.target.put(pair.pages[0], first) == Status.MH_DONE
    assert pair.target.put(pair.pages[1], second) == Status.MH_DONE


def test_the_host_says_so_in_one_line(pair: Pair) -> None:
    assert str(HelperRefused("import", Status.MH_BAD_TAG)) == (
        "helper refuses import: MH_BAD_TAG, and has ended the session: both sides need new hellos"
    )
    pair.target.ring.put_sealed(0, forged(pair.source.totals(Op.MH_OP_FINISH)))
    with pytest.raises(HelperRefused, match="finish: MH_BAD_TAG, and has ended the session"):
        pair.target.ring.ask("finish", Request(Op.MH_OP_FINISH))
