"""The urgent lane, pages that the guest shares, and VMSAs."""

from __future__ import annotations

import pytest

from emulator_tests.helper.conftest import Pair, PairMaker, Status, is_over
from emulator_tests.helper.rings import connected
from mh_abi import abi
from mh_builder.image.model import Image
from mh_emulator.host.ring import Request, Sealed
from mh_emulator.host.session import Batch, export_batch, finish, import_batch, share

Op = abi.mh_op
PAGE = abi.MH_PAGE_BYTES
FAR = 16 << 20
VMSA = Batch(address=0, count=1, flags=abi.MH_BATCH_VMSA)


def batch_of_512(pair: Pair) -> Batch:
    for side in (pair.source, pair.target):
        for page in range(512):
            side.machine.memory.spa(FAR + page * PAGE)
    return Batch(address=FAR, count=512, chunk=16)


@pytest.mark.parametrize("direction", ["export", "import"])
def test_urgent_page_overtakes_the_batch_at_work(pair: Pair, direction: str) -> None:
    batch, urgent = batch_of_512(pair), Batch(address=pair.pages[0], count=1)
    side, op = (pair.source, Op.MH_OP_EXPORT) if direction == "export" else (pair.target, Op.MH_OP_IMPORT)
    if direction == "import":
        for slot, sealed in zip(batch.packet_slots(), export_batch(pair.source.ring, batch)[0], strict=True):
            side.ring.put_sealed(slot, sealed)
        side.ring.urgent.put_sealed(0, export_batch(pair.source.ring.urgent, urgent)[0][0])
    bulk, before = side.ring.completed, side.ring.urgent.completed
    side.ring.submit(batch.request(op).dumps(0))
    assert side.machine.mirror.vcpu.run(4000).reason.value == "limit"
    side.ring.urgent.submit(urgent.request(op).dumps(0))
    while side.ring.urgent.completed == before:
        assert side.machine.mirror.vcpu.run(20000).reason.value == "limit"
    assert side.ring.completed == bulk, "the batch is still at work"
    assert side.ring.urgent.results(0, 1)[0].status == Status.MH_DONE
    side.ring.run()
    assert {result.status for result in side.ring.results(0, 512)} == {Status.MH_DONE}
    if direction == "import":
        assert pair.target_page(pair.pages[0]) == pair.contents[:PAGE]
        assert finish(pair.source.ring, pair.target.ring) == 513


def test_urgent_lane_has_a_stream_of_its_own_that_the_end_counts() -> None:
    rings = connected(1)
    source, target = rings.sources[0], rings.targets[0]
    urgent = Batch(address=rings.pages[0], count=1)
    (sealed,), _ = export_batch(source.ring.urgent, urgent)
    assert abi.mh_packet(sealed.packet).stream == abi.MH_STREAM_URGENT
    assert rings.keys(abi.MH_STREAM_URGENT).open(sealed.packet, sealed.data) == rings.page(0)
    assert target.put(rings.pages[0], sealed) == Status.MH_WRONG_STREAM
    end = source.totals(Op.MH_OP_FINISH)
    assert target.ask(Op.MH_OP_FINISH, sealed=end) == Status.MH_INCOMPLETE
    assert import_batch(target.ring.urgent, urgent, [sealed])[0].status == Status.MH_DONE
    assert target.ask(Op.MH_OP_FINISH, sealed=end) == Status.MH_DONE


@pytest.mark.parametrize("op", [Op.MH_OP_HELLO, Op.MH_OP_START, Op.MH_OP_ABORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH])
def test_urgent_lane_serves_pages_only(pair: Pair, op: int) -> None:
    assert pair.source.ring.urgent.serve([Request(op)])[0].status == Status.MH_WRONG_RING


def test_shared_page_is_refused_until_it_is_private_again(pair: Pair) -> None:
    first = Batch(address=pair.pages[0], count=1)
    for side, op in ((pair.source, Op.MH_OP_EXPORT), (pair.target, Op.MH_OP_IMPORT)):
        assert share(side.ring, first)[0].status == Status.MH_DONE
        assert side.ask(op, pair.pages[0]) == Status.MH_SHARED
    _, results = export_batch(pair.source.ring, Batch(address=0, count=2, chunk=2))
    assert {result.status for result in results} == {Status.MH_SHARED}
    for side in (pair.source, pair.target):
        share(side.ring, Batch(address=pair.pages[0], count=1, flags=abi.MH_BATCH_PRIVATE))
    assert pair.target.put(pair.pages[0], pair.source.export(pair.pages[0])) == Status.MH_DONE


@pytest.mark.parametrize("flags", [0, abi.MH_BATCH_PRIVATE])
def test_a_page_is_shared_while_an_epoch_ends(flags: int) -> None:
    """What moves pages waits until all rings have ended it; the guest does not."""
    rings = connected(2)
    side = rings.sources[0]
    assert side.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
    assert side.ask(Op.MH_OP_EXPORT, rings.pages[0]) == Status.MH_EPOCH_PENDING
    assert share(side.ring, Batch(address=rings.pages[0], count=1, flags=flags))[0].status == Status.MH_DONE


def test_the_last_vmsa_and_no_page_behind_it(pair: Pair) -> None:
    """Its window ends where MH_VMSA_BYTES do; a place without memory is an exit, not a refusal."""
    last = Batch(address=abi.MH_VMSA_BYTES - PAGE, count=1, flags=abi.MH_BATCH_VMSA)
    machine = pair.source.machine
    gpa = (machine.base + machine.helper.descriptor.vmsa_offset + abi.MH_VMSA_BYTES - PAGE) % (1 << 64)
    machine.mirror.vm.set_user_memory_region(9, gpa, PAGE, machine.platform.memory(PAGE), 0)
    assert export_batch(pair.source.ring, last)[1][0].status == Status.MH_DONE
    beyond = Batch(address=abi.MH_VMSA_BYTES, count=1, flags=abi.MH_BATCH_VMSA)
    assert export_batch(pair.source.ring, beyond)[1][0].status == Status.MH_OUT_OF_RANGE


def test_vmsa_is_no_ram_and_ram_no_vmsa(scheme: str, make_pair: PairMaker) -> None:
    pair = make_pair(scheme)
    contents = bytes(range(256)) * 16
    for side in (pair.source, pair.target):
        machine = side.machine
        memory = machine.platform.memory(PAGE)
        gpa = (machine.base + machine.helper.descriptor.vmsa_offset) % (1 << 64)
        machine.mirror.vm.set_user_memory_region(9, gpa, PAGE, memory, 0)
        machine.platform.dram.write_private(
            machine.asid, memory.spa(0), contents if side is pair.source else bytes(PAGE)
        )
    (sealed,), results = export_batch(pair.source.ring, VMSA)
    assert results[0].kind == abi.mh_kind.MH_KIND_VMSA
    assert pair.keys.open(sealed.packet, sealed.data) == contents
    assert pair.target.put(0, sealed) == Status.MH_BAD_PACKET
    assert import_batch(pair.target.ring, VMSA, [sealed])[0].status == Status.MH_DONE
    assert import_batch(pair.target.ring, VMSA, [sealed])[0].status == Status.MH_REPEATED
    other = Batch(address=PAGE, count=1, flags=abi.MH_BATCH_VMSA)
    assert import_batch(pair.target.ring, other, [pair.source.export(pair.pages[0])])[0].status == Status.MH_BAD_PACKET
    beyond = Batch(address=abi.MH_VMSA_BYTES, count=1, flags=abi.MH_BATCH_VMSA)
    assert export_batch(pair.source.ring, beyond)[1][0].status == Status.MH_OUT_OF_RANGE


def test_each_page_has_the_bit_that_is_its(images: dict[str, Image], pair: Pair) -> None:
    """As abi.h lays bitmaps out: RAM by request address, VMSAs behind ram_limit."""
    machine = pair.source.machine
    machine.mirror.vm.set_user_memory_region(
        9, (machine.base + machine.helper.descriptor.vmsa_offset) % (1 << 64), PAGE, machine.platform.memory(PAGE), 0
    )
    assert pair.source.ask(Op.MH_OP_EXPORT, pair.pages[2]) == Status.MH_DONE
    assert export_batch(pair.source.ring, VMSA)[1][0].status == Status.MH_DONE
    section = images["regions"].section(".bitmap")
    places = range(section.offset, section.offset + section.size, PAGE)
    bits = int.from_bytes(b"".join(machine.read_helper(place, PAGE) for place in places), "little")
    assert bits == 1 << pair.pages[2] // PAGE | 1 << machine.helper.descriptor.ram_limit // PAGE


def test_vmsa_relabelled_as_a_page(pair: Pair) -> None:
    sealed = Sealed(*pair.keys.seal(bytes(range(256)) * 16, kind=abi.mh_kind.MH_KIND_VMSA.value))
    fields = abi.mh_packet(sealed.packet)
    fields.kind = abi.mh_kind.MH_KIND_PAGE.value
    before = pair.target_page(0)
    assert pair.target.put(0, Sealed(fields.dumps(), sealed.data)) == Status.MH_BAD_TAG
    assert is_over(pair.target)
    assert pair.target_page(0) == before
