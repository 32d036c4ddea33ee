"""Whatever is forged, on whatever ring and lane: all rings of that side lose the session, and its keys are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator_tests.helper.conftest import Op, Status, is_over
from emulator_tests.helper.memory import found, session_key
from emulator_tests.helper.rings import RINGS, Rings, connected, image_of, machine_of, start
from emulator_tests.helper.test_refusals import flipped
from mh_abi import abi
from mh_emulator.host.ring import HelperRefused, Request, Sealed
from mh_emulator.host.session import Batch, import_batch, join
from mh_emulator.host.side import Side

Kind = abi.mh_kind
PAGE = abi.MH_PAGE_BYTES


@pytest.fixture
def rings() -> Rings:
    return connected()


Forgery = Callable[[Rings, int], abi.mh_status]


def last_bit(sealed: Sealed) -> Sealed:
    return Sealed(flipped(sealed.packet, len(sealed.packet) - 1), sealed.data)


def bad_bulk(rings: Rings, number: int) -> abi.mh_status:
    return rings.targets[number].put(rings.pages[0], last_bit(rings.sources[number].export(rings.pages[0])))


def bad_urgent(rings: Rings, number: int) -> abi.mh_status:
    keys = rings.keys(number | abi.MH_STREAM_URGENT)
    packet, data = keys.seal(bytes(PAGE), address=rings.pages[0])
    urgent = rings.targets[number].ring.urgent
    batch = Batch(address=rings.pages[0], count=1)
    return import_batch(urgent, batch, [Sealed(packet, flipped(data, 0))])[0].status


def bad_zeros(rings: Rings, number: int) -> abi.mh_status:
    packet, _ = rings.keys(number).seal(b"", kind=Kind.MH_KIND_ZERO.value, length=PAGE, address=rings.pages[0])
    return rings.targets[number].put(rings.pages[0], last_bit(Sealed(packet, b"")))


def bad_epoch(rings: Rings, number: int) -> abi.mh_status:
    return rings.targets[number].ask(Op.MH_OP_EPOCH, sealed=last_bit(rings.end(Op.MH_OP_EPOCH, number)))


def bad_finish(rings: Rings, number: int) -> abi.mh_status:
    return rings.targets[number].ask(Op.MH_OP_FINISH, sealed=last_bit(rings.end(Op.MH_OP_FINISH, number)))


def bad_epoch_total(rings: Rings, number: int) -> abi.mh_status:
    packet, _ = rings.keys(number).seal(b"", kind=Kind.MH_KIND_EPOCH.value, address=1)
    return rings.targets[number].ask(Op.MH_OP_EPOCH, sealed=Sealed(packet, b""))


def bad_finish_total(rings: Rings, number: int) -> abi.mh_status:
    packet, _ = rings.keys(number).seal(b"", kind=Kind.MH_KIND_END.value, address=1 << 63)
    return rings.targets[number].ask(Op.MH_OP_FINISH, sealed=Sealed(packet, b""))


TAGS: list[Forgery] = [bad_bulk, bad_urgent, bad_zeros, bad_epoch, bad_finish]
TOTALS: list[Forgery] = [bad_epoch_total, bad_finish_total]


@pytest.mark.parametrize("number", range(RINGS))
@pytest.mark.parametrize("forge", [*TAGS, *TOTALS])
def test_every_forgery_costs_all_rings_the_session(rings: Rings, forge: Forgery, number: int) -> None:
    machine = rings.targets[0].machine
    before = [rings.target_page(page) for page in rings.pages]
    true = [rings.sources[each].export(rings.pages[1 + each]) for each in range(RINGS)]
    expected = Status.MH_BAD_TAG if forge in TAGS else Status.MH_BAD_TOTALS
    true_end = forge in (bad_bulk, bad_epoch, bad_finish)
    # What a source has sealed before comes first in the stream.
    if true_end:
        assert rings.targets[number].put(rings.pages[1 + number], true[number]) == Status.MH_DONE
        before[1 + number] = rings.page(1 + number)
    assert forge(rings, number) == expected
    for each, side in enumerate(rings.targets):
        assert side.put(rings.pages[1 + each], true[each]) == Status.MH_WRONG_STATE
        assert side.ask(Op.MH_OP_EPOCH) == side.ask(Op.MH_OP_FINISH) == Status.MH_WRONG_STATE
    keys = [rings.keys(each | urgent).page_key for each in range(RINGS) for urgent in (0, abi.MH_STREAM_URGENT)]
    assert found(image_of(RINGS), machine, *keys) == set()
    assert [rings.target_page(page) for page in rings.pages] == before


@pytest.mark.parametrize("forge", [bad_bulk, bad_epoch_total])
def test_a_new_session_needs_new_hellos_and_is_whole(rings: Rings, forge: Forgery) -> None:
    forge(rings, 1)
    assert is_over(rings.targets[0])
    for side in rings.sources:
        assert side.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    source, target = rings.sources[0].machine, rings.targets[0].machine
    session = start(source, target, RINGS)
    for ring in (*source.rings[1:], *target.rings[1:]):
        join(ring)
    again = Rings(rings.sources, rings.targets, session, rings.pages, rings.contents)
    for number in range(RINGS):
        assert again.move(number, rings.pages[number]) == Status.MH_DONE
        assert rings.target_page(rings.pages[number]) == rings.page(number)


def test_who_has_not_joined_never_will(rings: Rings) -> None:
    source, target = rings.sources[0].machine, machine_of(RINGS, 3)
    for side in rings.sources:
        side.ask(Op.MH_OP_ABORT)
    session = start(source, target, RINGS)
    packet, data = session.stream(0).seal(bytes(PAGE))
    side = Side(target, target.rings[0])
    assert session_key(image_of(RINGS), target) == session.key
    assert side.put(0, Sealed(packet, flipped(data, 77))) == Status.MH_BAD_TAG
    assert found(image_of(RINGS), target, session.key) == set()
    for ring in target.rings[1:]:
        assert ring.serve([Request(Op.MH_OP_JOIN)])[0].status == Status.MH_WRONG_STATE


# ---- what a host tells its user ----

OVER = ", and has ended the session: both sides need new hellos$"


@pytest.mark.parametrize("op", ["epoch", "finish"])
def test_one_line_for_a_wrong_total(rings: Rings, op: str) -> None:
    """A packet more than the source has counted: of somebody who has the keys."""
    target = rings.targets[0].ring
    more = Sealed(*rings.keys(0).seal(b"more" * 1024, address=rings.pages[0]))
    assert rings.targets[0].put(rings.pages[0], more) == Status.MH_DONE
    kind = Kind.MH_KIND_EPOCH if op == "epoch" else Kind.MH_KIND_END
    packet, _ = rings.keys(0).seal(b"", kind=kind.value, address=0, sequence=1)
    target.put_sealed(0, Sealed(packet, b""))
    request = Request(Op.MH_OP_EPOCH if op == "epoch" else Op.MH_OP_FINISH)
    with pytest.raises(HelperRefused, match=f"^helper refuses {op}: MH_BAD_TOTALS{OVER}"):
        target.ask(op, request)
