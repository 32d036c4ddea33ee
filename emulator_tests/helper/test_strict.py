"""The strict finish: the source proves that nothing has changed since it was exported."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from emulator_tests.helper.conftest import PAGES, boot_contents, contents_of
from emulator_tests.helper.contention import last, stop_before_write
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import Options
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import place
from mh_emulator.host.ring import HelperRefused, Request
from mh_emulator.host.session import (
    Batch,
    abort,
    begin,
    connect_all,
    end_epoch,
    export_batch,
    finish,
    greet,
    import_batch,
    join,
    share,
)
from mh_emulator.host.side import Side
from mh_emulator.host.site import prepare
from mh_emulator.kvm.exits import Reason
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

Op = abi.mh_op
Role = abi.mh_role
Status = abi.mh_status
Kind = abi.mh_kind

RAM_LIMITS = {"alias-gpa": 5 << 30}
"""Where addresses are GPAs, half of the RAM lies above 4 GiB; all private memory is launched, authenticators too."""

SECRET = Secret.fresh(flags=abi.MH_OWNER_STRICT)


@cache
def image_of(scheme: str, rings: int = 1, *, strict: bool = True) -> Image:
    return build_helper(scheme, Options(ram_limit=RAM_LIMITS.get(scheme, 1 << 30), vcpus=rings, strict=strict))


def launched(image: Image, seed: int, contents: bytes = b"", secret: Secret = SECRET) -> Machine:
    helper = parse_image(image.data)
    placement = place(PAGES * abi.MH_PAGE_BYTES, helper)
    site = prepare(Platform(PARTS["milan"], 64 << 20, seed), placement, helper)
    machine = launch(site, GuestOwner(POLICY), boot_contents(placement, contents), secret)
    machine.start_helper()
    return machine


class Strict:
    """A guest and its target; the host writes into the guest's RAM as the guest itself would."""

    def __init__(self, scheme: str = "regions", rings: int = 1) -> None:
        self.contents = contents_of(PAGES - 1) + bytes(abi.MH_PAGE_BYTES)
        self.source = launched(image_of(scheme, rings), 1, self.contents)
        self.target = launched(image_of(scheme, rings), 2)
        connect_all(self.source.rings, self.target.rings)
        self.ram = self.source.guest_pages()
        for page in self.ram:
            self.target.memory.spa(page)

    def move(self, *numbers: int, ring: int = 0, urgent: bool = False) -> None:
        addresses = tuple(self.source.request_address(self.ram[number]) for number in numbers)
        lanes = [machine.rings[ring] for machine in (self.source, self.target)]
        source, target = [lane.urgent if urgent else lane for lane in lanes]
        batch = Batch(listed=addresses)
        packets, exported = export_batch(source, batch)
        results = [*exported, *import_batch(target, batch, packets)]
        assert {result.status for result in results} == {Status.MH_DONE}

    def write(self, number: int, data: bytes, offset: int = 0) -> None:
        """As the guest would."""
        place = self.source.memory.spa(self.ram[number]) + offset
        self.source.platform.dram.write_private(self.source.asid, place, data)

    def finish_source(self, ring: int = 0) -> abi.mh_status:
        return self.source.rings[ring].serve([Request(Op.MH_OP_FINISH)])[0].status

    def end_epoch(self) -> None:
        for source, target in zip(self.source.rings, self.target.rings, strict=True):
            end_epoch(source, target)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_has_changed(scheme: str) -> None:
    guest = Strict(scheme)
    guest.move(*range(PAGES))
    assert finish(guest.source.rings[0], guest.target.rings[0]) == PAGES
    for number, page in enumerate(guest.ram):
        at = number * abi.MH_PAGE_BYTES
        assert guest.target.read_guest(page) == guest.contents[at : at + abi.MH_PAGE_BYTES]


@pytest.mark.parametrize("offset", [0, 1, 2047, 4095])
@pytest.mark.parametrize("number", [0, PAGES - 2, PAGES - 1])
def test_any_changed_byte_is_noticed(number: int, offset: int) -> None:
    """Also in the page of zeros, which has no data to seal."""
    guest = Strict()
    guest.move(*range(PAGES))
    old = guest.source.read_guest(guest.ram[number])[offset]
    guest.write(number, bytes([old ^ 0x80]), offset)
    assert guest.finish_source() == Status.MH_CHANGED
    # The session lives: what has changed can be moved in the next epoch. What is as it was again is good.
    guest.write(number, bytes([old]), offset)
    assert guest.finish_source() == Status.MH_DONE


def test_a_page_that_is_exported_again_is_good_again() -> None:
    guest = Strict()
    guest.move(*range(PAGES))
    guest.write(2, b"new" * 100)
    assert guest.finish_source() == Status.MH_CHANGED
    guest.end_epoch()
    guest.move(2)
    assert finish(guest.source.rings[0], guest.target.rings[0]) == PAGES + 1
    assert guest.target.read_guest(guest.ram[2])[:300] == b"new" * 100


def test_a_page_that_was_never_exported_may_change() -> None:
    """What FINISH proves is about what was exported; which pages that has to be, the host knows."""
    guest = Strict()
    guest.move(0, 1)
    guest.write(3, b"whatever")
    assert guest.finish_source() == Status.MH_DONE


def test_zeros_that_became_data_and_data_that_became_zeros() -> None:
    guest = Strict()
    guest.move(*range(PAGES))
    guest.write(0, bytes(abi.MH_PAGE_BYTES))
    assert guest.finish_source() == Status.MH_CHANGED


def test_urgent_pages_count() -> None:
    guest = Strict()
    guest.move(0, 1)
    guest.move(2, urgent=True)
    guest.write(2, b"x")
    assert guest.finish_source() == Status.MH_CHANGED


def test_each_ring_answers_for_what_it_exported_last() -> None:
    guest = Strict(rings=3)
    guest.move(0, ring=0)
    guest.move(1, ring=1)
    guest.move(2, ring=2)
    guest.end_epoch()
    guest.move(0, ring=1)
    guest.write(0, b"x")
    assert guest.finish_source(0) == Status.MH_DONE
    assert guest.finish_source(2) == Status.MH_DONE
    assert guest.finish_source(1) == Status.MH_CHANGED


def test_a_new_session_owes_nothing_to_the_one_before() -> None:
    guest = Strict()
    guest.move(*range(PAGES))
    guest.write(4, b"x")
    for machine in (guest.source, guest.target):
        abort(machine.rings[0])
    connect_all(guest.source.rings, guest.target.rings)
    guest.move(0)
    assert guest.finish_source() == Status.MH_DONE


def test_a_chunk_is_one_page() -> None:
    guest = Strict()
    with pytest.raises(HelperRefused, match="MH_NOT_STRICT"):
        export_batch(guest.source.rings[0], Batch(address=0, count=2, chunk=2))


def test_a_chunk_that_is_shared_is_of_any_size() -> None:
    """Nothing is owed for a page that is not moved."""
    guest = Strict()
    results = share(guest.source.rings[0], Batch(address=guest.ram[0], count=2, chunk=2))
    assert {result.status for result in results} == {Status.MH_DONE}


def test_no_authenticator_repeats_nor_shows_the_page() -> None:
    """A page that is exported unchanged in every epoch has other authenticators, as the host sees them too."""
    guest = Strict()
    section = image_of("regions").section(".authenticators")
    seen = set()
    for _ in range(4):
        guest.move(1)
        place = section.offset + guest.ram[1] // abi.MH_PAGE_BYTES * abi.MH_AUTHENTICATOR_BYTES
        raw = guest.source.helper_memory.read_raw(guest.source.helper_offset + place, abi.MH_AUTHENTICATOR_BYTES)
        seen |= {raw[:16], raw[16:]}
        guest.end_epoch()
    assert len(seen) == 8


def test_only_an_image_with_the_room_can_be_the_source() -> None:
    source, target = launched(image_of("regions", strict=False), 1), launched(image_of("regions"), 2)
    hellos = [greet(machine.rings[0]) for machine in (source, target)]
    with pytest.raises(HelperRefused, match="MH_NOT_STRICT"):
        begin(source.rings[0], Role.MH_ROLE_SOURCE, hellos[1])
    begin(target.rings[0], Role.MH_ROLE_TARGET, hellos[0])


def test_without_the_flag_nothing_is_asked() -> None:
    """The room alone makes no source strict: the owner does."""
    lax = replace(SECRET, flags=0)
    source, target = (
        launched(image_of("regions"), 1, contents_of(PAGES), lax),
        launched(image_of("regions"), 2, b"", lax),
    )
    connect_all(source.rings, target.rings)
    page = source.guest_pages()[0]
    side = Side(source, source.rings[0])
    side.export(source.request_address(page))
    source.platform.dram.write_private(source.asid, source.memory.spa(page), b"x")
    assert side.ask(Op.MH_OP_FINISH) == Status.MH_DONE


def test_a_ring_that_joins_is_strict_too() -> None:
    source, target = launched(image_of("regions", 2), 1, contents_of(PAGES)), launched(image_of("regions", 2), 2)
    hellos = [greet(machine.rings[0]) for machine in (source, target)]
    begin(source.rings[0], Role.MH_ROLE_SOURCE, hellos[1], 2)
    join(source.rings[1])
    with pytest.raises(HelperRefused, match="MH_NOT_STRICT"):
        export_batch(source.rings[1], Batch(address=0, count=2, chunk=2))


def test_the_finish_waits_for_the_epoch() -> None:
    guest = Strict(rings=2)
    guest.move(0)
    assert guest.source.rings[0].serve([Request(Op.MH_OP_EPOCH)])[0].status == Status.MH_DONE
    assert guest.finish_source() == Status.MH_EPOCH_PENDING


def test_a_page_that_another_ring_is_about_to_seal_is_that_rings() -> None:
    """It has the bit of its page already, and no authenticator yet."""
    guest = Strict(rings=2)
    ring = guest.source.rings[1]
    page = guest.source.request_address(guest.ram[1])
    ring.submit(Batch(address=page, count=1).request(Op.MH_OP_EXPORT).dumps(0))
    stop_before_write(guest.source, 1, 1)
    assert guest.source.mirror.vcpus[1].run(2).reason is Reason.LIMIT
    assert guest.finish_source() == Status.MH_DONE
    ring.run()
    assert last(ring) == Status.MH_DONE
    assert guest.finish_source(1) == Status.MH_DONE


def test_a_vmsa_that_has_changed_is_noticed() -> None:
    guest = Strict()
    vmsa = Batch(address=0, count=1, flags=abi.MH_BATCH_VMSA)
    memory = guest.source.platform.memory(abi.MH_PAGE_BYTES)
    gpa = (guest.source.base + guest.source.helper.descriptor.vmsa_offset) % (1 << 64)
    guest.source.mirror.vm.set_user_memory_region(9, gpa, abi.MH_PAGE_BYTES, memory, 0)
    guest.source.platform.dram.write_private(guest.source.asid, memory.spa(0), contents_of(1))
    _, results = export_batch(guest.source.rings[0], vmsa)
    assert results[0].status == Status.MH_DONE
    guest.source.platform.dram.write_private(guest.source.asid, memory.spa(0), b"x")
    assert guest.finish_source() == Status.MH_CHANGED
    guest.source.platform.dram.write_private(guest.source.asid, memory.spa(0), contents_of(1)[:1])
    assert guest.finish_source() == Status.MH_DONE
