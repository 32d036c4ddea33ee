"""Several vCPUs: a ring, a block and a stream for each; one session, one epoch, one map of pages for all."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from emulator_tests.helper.conftest import PAGES, SECRET, Status, at_work
from emulator_tests.helper.oracle import private_bytes
from emulator_tests.helper.rings import (
    RINGS,
    Rings,
    block_holds,
    bulk,
    connected,
    image_of,
    machine_of,
    sides_of,
    start,
)
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import vcpu_section
from mh_builder.parts import PARTS
from mh_builder.schemes.space import LayoutError, Options
from mh_emulator.host import migration
from mh_emulator.host.migration import Scenario
from mh_emulator.host.ring import HelperRefused, Request, Sealed
from mh_emulator.host.session import begin, connect, end_epoch, finish, finish_all, greet, join
from mh_emulator.kvm import Vcpu
from mh_emulator.peer import Peer

Op = abi.mh_op
Kind = abi.mh_kind
PAGE = abi.MH_PAGE_BYTES
EACH = range(RINGS)


@pytest.fixture
def rings() -> Rings:
    return connected()


# ---- the image ----


@pytest.mark.parametrize("count", [0, -1, 65])
def test_number_of_vcpus_is_checked(count: int) -> None:
    with pytest.raises(LayoutError, match=f"^regions: {count} vCPUs are not 1 to 64$"):
        build_helper("regions", Options(vcpus=count))


def test_sixty_four_vcpus() -> None:
    image = build_helper("isolated", Options(vcpus=64, ram_limit=1 << 30))
    descriptor = parse_image(image.data).descriptor
    assert descriptor.ring_count == abi.MH_MAX_RINGS == 64
    assert descriptor.ring_offset + 64 * descriptor.ring_stride == descriptor.memory_bytes
    blocks = [image.section(vcpu_section(".vcpu", number)) for number in range(64)]
    assert {after.va - before.va for before, after in pairwise(blocks)} == {descriptor.vcpu_stride}
    stacks = [image.section(vcpu_section(".stack", number)) for number in range(64)]
    assert [stack.va + stack.size for stack in stacks] == [
        descriptor.stack64 + number * descriptor.vcpu_stride for number in range(64)
    ]


def test_vcpus_share_no_page_of_their_own() -> None:
    """No false sharing: block, stacks and ring of a vCPU are on pages that no other one has, with guards between."""
    image = image_of(RINGS)
    names = [vcpu_section(name, number) for number in EACH for name in (".fault_stack", ".stack", ".vcpu")]
    places = [image.section(name) for name in names]
    for before, after in pairwise(places):
        gap = after.offset - before.offset - before.pages * PAGE
        assert gap == (0 if after.name.startswith(".vcpu") else PAGE)
    assert abi.MH_RING_BYTES % PAGE == 0


# ---- streams ----


def test_every_ring_moves_pages_under_a_key_of_its_own(rings: Rings) -> None:
    for number in EACH:
        address = rings.pages[number]
        sealed = rings.sources[number].export(address)
        fields = abi.mh_packet(sealed.packet)
        assert (fields.stream, fields.sequence) == (number, 0)
        assert rings.keys(number).open(sealed.packet, sealed.data) == rings.page(number)
        assert rings.targets[number].put(address, sealed) == Status.MH_DONE
        assert rings.target_page(address) == rings.page(number)
    assert len({rings.keys(number).page_key for number in EACH}) == RINGS
    assert finish_all(*bulk(rings)) == RINGS


def test_packet_of_another_ring(rings: Rings) -> None:
    sealed = rings.sources[1].export(rings.pages[0])
    before = rings.target_page(rings.pages[0])
    for number in (0, 2):
        assert rings.targets[number].put(rings.pages[0], sealed) == Status.MH_WRONG_STREAM
    assert rings.target_page(rings.pages[0]) == before
    assert rings.targets[1].put(rings.pages[0], sealed) == Status.MH_DONE


@pytest.mark.parametrize("number", [0, 2])
def test_packet_of_another_ring_relabelled(rings: Rings, number: int) -> None:
    """It ends the session for all rings of the target."""
    sealed = rings.sources[1].export(rings.pages[0])
    before = rings.target_page(rings.pages[0])
    fields = abi.mh_packet(sealed.packet)
    fields.stream = number
    assert rings.targets[number].put(rings.pages[0], Sealed(fields.dumps(), sealed.data)) == Status.MH_BAD_TAG
    for other, side in enumerate(rings.targets):
        assert side.put(rings.pages[0], sealed) == Status.MH_WRONG_STATE
        assert not block_holds(side.machine, other, rings.keys(other).page_key)
    assert rings.target_page(rings.pages[0]) == before


def test_number_of_rings_is_in_every_key(rings: Rings) -> None:
    """A target that was told of fewer rings, so that one could be dropped whole, takes nothing."""
    source, target = rings.sources[0].machine, rings.targets[0].machine
    for side in (rings.sources[0], rings.targets[0]):
        assert side.ask(Op.MH_OP_ABORT) == Status.MH_DONE
    hellos = greet(source.rings[0]), greet(target.rings[0])
    begin(source.rings[0], abi.mh_role.MH_ROLE_SOURCE, hellos[1], RINGS)
    begin(target.rings[0], abi.mh_role.MH_ROLE_TARGET, hellos[0], RINGS - 1)
    sealed = rings.sources[0].export(rings.pages[0])
    assert rings.targets[0].put(rings.pages[0], sealed) == Status.MH_WRONG_SESSION
    fields = abi.mh_packet(sealed.packet)
    fields.session = list(private_bytes(image_of(RINGS), target, "vcpu_session", abi.MH_SESSION_BYTES))
    before = rings.target_page(rings.pages[0])
    assert rings.targets[0].put(rings.pages[0], Sealed(fields.dumps(), sealed.data)) == Status.MH_BAD_TAG
    assert rings.target_page(rings.pages[0]) == before


def test_page_is_moved_once_in_an_epoch_on_all_rings_together(rings: Rings) -> None:
    assert rings.move(1, rings.pages[0]) == Status.MH_DONE
    for number in EACH:
        assert rings.sources[number].ask(Op.MH_OP_EXPORT, rings.pages[0]) == Status.MH_REPEATED
        assert rings.targets[number].ask(Op.MH_OP_IMPORT, rings.pages[0]) == Status.MH_REPEATED


def test_refused_chunk_leaves_its_pages_to_the_others(rings: Rings) -> None:
    sealed = rings.sources[1].export(rings.pages[0])
    fields = abi.mh_packet(sealed.packet)
    fields.sequence = 1
    broken = Sealed(fields.dumps(), sealed.data)
    assert rings.targets[1].put(rings.pages[0], broken) == Status.MH_OUT_OF_ORDER
    other, data = rings.keys(2).seal(bytes(PAGE), address=rings.pages[0], sequence=0)
    assert rings.targets[2].put(rings.pages[0], Sealed(other, data)) == Status.MH_DONE
    assert rings.targets[1].put(rings.pages[0], sealed) == Status.MH_REPEATED


# ---- epochs and ends ----


def test_epoch_ends_when_all_rings_have_ended_it(rings: Rings) -> None:
    assert rings.move(0, rings.pages[0]) == Status.MH_DONE
    sources, targets = bulk(rings)
    for number in (2, 0):
        assert end_epoch(sources[number], targets[number]) == 0
        for side, op in ((rings.sources[number], Op.MH_OP_EXPORT), (rings.targets[number], Op.MH_OP_IMPORT)):
            assert side.ask(op, rings.pages[1]) == Status.MH_EPOCH_PENDING
            assert side.ask(Op.MH_OP_EPOCH) == Status.MH_EPOCH_PENDING
            assert side.ask(Op.MH_OP_FINISH) == Status.MH_EPOCH_PENDING
    assert rings.move(1, rings.pages[1]) == Status.MH_DONE
    assert end_epoch(sources[1], targets[1]) == 1
    # The next one is open to all rings, and to every page again.
    for number in EACH:
        assert rings.move(number, rings.pages[number]) == Status.MH_DONE
        assert abi.mh_packet(rings.sources[number].ring.take_sealed(0).packet).epoch == 1
    assert finish_all(sources, targets) == 2 + RINGS


def test_ring_that_has_not_joined_holds_the_epoch_and_the_end(rings: Rings) -> None:
    source, target = rings.sources[0].machine, rings.targets[0].machine
    for side in (rings.sources[0], rings.targets[0]):
        side.ask(Op.MH_OP_ABORT)
    start(source, target, RINGS)
    for ring in (source.rings[1], target.rings[1]):
        join(ring)
    assert [end_epoch(*pair) for pair in zip(source.rings[:2], target.rings[:2], strict=True)] == [0, 0]
    assert rings.sources[0].ask(Op.MH_OP_FINISH) == Status.MH_EPOCH_PENDING


def test_dropped_packet_holds_its_ring_and_the_epoch(rings: Rings) -> None:
    rings.sources[1].export(rings.pages[0])
    end = rings.end(Op.MH_OP_EPOCH, 1)
    assert rings.targets[1].ask(Op.MH_OP_EPOCH, sealed=end) == Status.MH_OUT_OF_ORDER
    sources, targets = bulk(rings)
    assert end_epoch(sources[0], targets[0]) == end_epoch(sources[2], targets[2]) == 0
    assert rings.targets[0].ask(Op.MH_OP_IMPORT, rings.pages[1]) == Status.MH_EPOCH_PENDING


def test_end_packet_of_another_ring(rings: Rings) -> None:
    for op in (Op.MH_OP_EPOCH, Op.MH_OP_FINISH):
        end = rings.end(op, 1)
        assert rings.targets[2].ask(op, sealed=end) == Status.MH_WRONG_STREAM
        if op == Op.MH_OP_EPOCH:
            assert rings.targets[1].ask(op, sealed=end) == Status.MH_DONE
            for number in (0, 2):
                assert rings.targets[number].ask(op, sealed=rings.end(op, number)) == Status.MH_DONE


def test_wrong_total_on_one_ring_ends_the_session_for_all(rings: Rings) -> None:
    packet, data = rings.keys(2).seal(b"", kind=Kind.MH_KIND_END.value, address=1, sequence=0)
    assert rings.targets[2].ask(Op.MH_OP_FINISH, sealed=Sealed(packet, data)) == Status.MH_BAD_TOTALS
    for number, side in enumerate(rings.targets):
        assert side.ask(Op.MH_OP_IMPORT, rings.pages[0]) == Status.MH_WRONG_STATE
        assert not block_holds(side.machine, number, rings.keys(number).page_key)


def test_both_sides_tell_the_same_totals(rings: Rings) -> None:
    for number, page in ((0, 0), (1, 1), (1, 2), (2, 3)):
        assert rings.move(number, rings.pages[page]) == Status.MH_DONE
    told = []
    for number in (1, 0, 2):
        source = rings.sources[number].ring.ask("finish", Request(Op.MH_OP_FINISH))
        rings.targets[number].ring.put_sealed(0, rings.sources[number].ring.take_sealed(0))
        target = rings.targets[number].ring.ask("finish", Request(Op.MH_OP_FINISH))
        assert (source.pages, source.total) == (target.pages, target.total)
        told.append((source.pages, source.total))
    assert told == [(2, 2), (1, 3), (1, 4)]


def test_finished_ring_waits_for_the_others(rings: Rings) -> None:
    sources, targets = bulk(rings)
    finish(sources[0], targets[0])
    assert not block_holds(rings.sources[0].machine, 0, rings.keys(0).page_key)
    for op in (Op.MH_OP_HELLO, Op.MH_OP_EXPORT, Op.MH_OP_FINISH):
        assert rings.sources[0].ask(op, rings.pages[0] if op == Op.MH_OP_EXPORT else 0) == Status.MH_WRONG_STATE
    assert rings.move(1, rings.pages[1]) == Status.MH_DONE
    for number in (1, 2):
        finish(sources[number], targets[number])
    connect(sources[0], targets[0])


# ---- who begins, who joins, who ends ----


def test_hello_and_start_are_for_ring_0_and_join_for_the_others() -> None:
    sides = sides_of(machine_of(2, 1))
    assert sides[0].ask(Op.MH_OP_JOIN) == Status.MH_WRONG_RING
    assert sides[1].ask(Op.MH_OP_HELLO) == Status.MH_WRONG_RING
    assert sides[1].ring.serve([Request(Op.MH_OP_START, role=1, count=1)])[0].status == Status.MH_WRONG_RING
    assert sides[1].ask(Op.MH_OP_JOIN) == Status.MH_WRONG_STATE


def test_ring_joins_once_and_only_a_session_that_it_is_part_of(rings: Rings) -> None:
    assert rings.sources[1].ask(Op.MH_OP_JOIN) == Status.MH_WRONG_STATE
    finish(rings.sources[1].ring, rings.targets[1].ring)
    assert rings.sources[1].ask(Op.MH_OP_JOIN) == Status.MH_WRONG_STATE
    for side in (rings.sources[1], rings.targets[1]):
        side.ask(Op.MH_OP_ABORT)
    start(rings.sources[0].machine, rings.targets[0].machine, 2)
    assert rings.sources[2].ask(Op.MH_OP_JOIN) == Status.MH_WRONG_STATE
    assert rings.sources[1].ask(Op.MH_OP_JOIN) == Status.MH_DONE


@pytest.mark.parametrize("number", EACH)
def test_abort_on_any_ring_ends_the_session_for_all(rings: Rings, number: int) -> None:
    assert rings.sources[number].ask(Op.MH_OP_ABORT) == Status.MH_DONE
    for other, side in enumerate(rings.sources):
        assert side.ask(Op.MH_OP_EXPORT, rings.pages[0]) == Status.MH_WRONG_STATE
        assert not block_holds(side.machine, other, rings.keys(other).page_key)
    session = start(rings.sources[0].machine, machine_of(RINGS, 3), RINGS)
    join(rings.sources[1].ring)
    sealed = rings.sources[1].export(rings.pages[0])
    assert abi.mh_packet(sealed.packet).sequence == 0
    assert replace(rings, session=session).keys(1).open(sealed.packet, sealed.data) == rings.page(0)


def test_session_ended_on_another_ring_in_the_middle_of_a_batch(rings: Rings) -> None:
    """The rest of the batch is answered so, and the ring's keys are gone."""
    machine = rings.sources[0].machine
    for page in range(64):
        machine.memory.spa((16 << 20) + page * PAGE)
    ring = rings.sources[1].ring
    ring.submit(Request(Op.MH_OP_EXPORT, address=16 << 20, count=64, chunk=1).dumps(0))
    step_until(machine.mirror.vcpus[1], lambda: ring.results(3, 1)[0].kind != 0)
    rings.sources[2].ask(Op.MH_OP_ABORT)
    ring.run()
    statuses = [result.status for result in ring.results(0, 64)]
    done = statuses.count(Status.MH_DONE)
    assert 3 < done < 64
    assert statuses == [Status.MH_DONE] * done + [Status.MH_ENDED] * (64 - done)
    assert not block_holds(rings.sources[1].machine, 1, rings.keys(1).page_key)


def step_until(vcpu: Vcpu, condition: object, instructions: int = 3000) -> None:
    """Run a vCPU in small steps until `condition()` holds; it must not halt before."""
    assert callable(condition)
    for _ in range(2000):
        if condition():
            return
        assert vcpu.run(instructions).reason.value == "limit"
    raise AssertionError("that never happens")


def test_no_session_begins_while_a_vcpu_is_at_work_in_the_one_before(rings: Rings) -> None:
    """What it is about to import would land behind what the new session imports."""
    target = rings.targets[0].machine
    old = rings.sources[1].export(rings.pages[0])
    ring = rings.targets[1].ring
    ring.put_sealed(0, old)
    ring.submit(Request(Op.MH_OP_IMPORT, address=rings.pages[0], count=1, chunk=1).dumps(0))
    assert target.mirror.vcpus[1].run(2000).reason.value == "limit"
    assert rings.targets[0].ask(Op.MH_OP_ABORT) == Status.MH_DONE
    greet(rings.targets[0].ring)
    peer = Peer(SECRET)
    with pytest.raises(HelperRefused, match="^helper refuses start: MH_BUSY$"):
        begin(rings.targets[0].ring, abi.mh_role.MH_ROLE_TARGET, peer.hello, RINGS)
    ring.run()
    begin(rings.targets[0].ring, abi.mh_role.MH_ROLE_TARGET, peer.hello, RINGS)
    assert rings.targets[1].ask(Op.MH_OP_IMPORT, rings.pages[0]) == Status.MH_WRONG_STATE


def test_fault_on_one_vcpu_ends_the_session_for_all(rings: Rings) -> None:
    vcpu = at_work(rings.sources[1], 1)
    vcpu.set_registers(replace(vcpu.get_registers(), rip=0xFFFF_9000_0000_0000))
    rings.sources[1].machine.mirror.run(1)
    assert rings.sources[1].ring.header().state == abi.mh_ring_state.MH_RING_FAULT
    assert rings.sources[0].ring.header().state == abi.mh_ring_state.MH_RING_READY
    for number in (0, 2):
        assert rings.sources[number].ask(Op.MH_OP_EXPORT, rings.pages[0]) == Status.MH_WRONG_STATE
        assert not block_holds(rings.sources[number].machine, number, rings.keys(number).page_key)
    assert not block_holds(rings.sources[1].machine, 1, rings.keys(1).page_key)


# ---- at once ----


def test_migration_on_four_rings_at_once_equals_that_on_one() -> None:
    """Threads: the engines of all vCPUs execute at the same time."""
    contents = bytes(range(251)) * 3000
    moved = []
    for rings in (1, 4):
        image = image_of(rings)
        report = migration.run(
            Scenario("regions", PARTS["milan"], parse_image(image.data), image.table_bytes, contents)
        )
        assert report.good
        assert report.vcpus == rings
        moved.append(report.pages)
    assert moved[0] == moved[1] > PAGES
