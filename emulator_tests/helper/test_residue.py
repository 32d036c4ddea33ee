"""What a whole migration leaves in the helper's private memory, as the host sees it and as it is."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from emulator_tests.crypto.kernels import constants
from emulator_tests.helper.conftest import SECRET, boot_contents
from emulator_tests.theorems.linked import offsets
from mh_abi import abi
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import hosted
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import HELPER_VA, MIRROR_STARTS, Options, Start
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.host.launch import launch
from mh_emulator.host.placement import place
from mh_emulator.host.ring import Lane, Sealed
from mh_emulator.host.session import Batch, abort, connect, end_epoch, finish
from mh_emulator.host.site import prepare
from mh_emulator.kvm.exits import Reason
from mh_emulator.owner import POLICY, POLICY_ES, GuestOwner
from mh_emulator.platform import Platform

PAGE = abi.MH_PAGE_BYTES
PAGES = 8
CHUNK = 4
STRIDE = 1499
"""Instructions between two looks: a prime, so that they fall everywhere."""
PRIVATE = (".bss", ".vcpu", ".stack", ".fault_stack")
Op = abi.mh_op


@cache
def image_of(scheme: str, start: Start) -> Image:
    return build_helper(scheme, Options(ram_limit=5 << 30, start=start))


def contents() -> bytes:
    """Pages that share blocks at the same offset, two pages alike, a page of zeros among others."""
    source = random.Random("residue")
    pages = [bytearray(source.randbytes(PAGE)) for _ in range(PAGES)]
    for page in pages[1:]:
        page[0x200:0x210] = pages[0][0x200:0x210]
    pages[3] = pages[2]
    pages[5] = bytearray(PAGE)
    return b"".join(pages)


class Watched:
    """A machine with its helper, of which the host looks at all private memory again and again."""

    def __init__(self, image: Image, seed: int, data: bytes) -> None:
        es = image.space.options.start is Start.ES
        part = PARTS["milan"]
        helper = hosted(image, part.c_bit)
        placement = place(PAGES * PAGE, helper)
        site = prepare(Platform(part, 32 << 20, seed), placement, helper)
        owner = GuestOwner(POLICY_ES if es else POLICY)
        self.machine = launch(site, owner, boot_contents(placement, data), SECRET)
        self.ring = self.machine.start_helper()
        self._places = [image.section(name) for name in PRIVATE]
        self.scratch = image.symbol("vcpu_scratch").value - HELPER_VA
        self.seen: set[bytes] = set()
        """All 8-byte words that were there at any look."""

    def serve(self, lane: Lane, batch: Batch, op: int) -> None:
        """As the host would, with a look after every few instructions."""
        if batch.listed:
            lane.put_list(0, batch.listed)
        lane.submit(batch.request(op).dumps(0))
        while self.machine.mirror.vcpu.run(STRIDE).reason is Reason.LIMIT:
            self.look()
        self.look()
        assert {result.status.name for result in lane.results(0, batch.pages)} == {"MH_DONE"}

    def look(self) -> None:
        for section in self._places:
            # Of the scratch the first page tells enough.
            end = min(section.offset + section.size, self.scratch + PAGE if section.name == ".vcpu" else 1 << 63)
            for offset in range(section.offset, end, PAGE):
                page = self.machine.read_helper(offset, PAGE)
                self.seen.update(page[at : at + 8] for at in range(0, PAGE, 8))

    def destination(self, job: str) -> int:
        """Of a job of the bulk lane, what it names as its destination."""
        known = offsets()
        place = self._places[PRIVATE.index(".vcpu")].offset + known["vcpu.bulk"] + known[job]
        return int.from_bytes(self.machine.read_helper(place + constants()["gcm_job.destination"], 8), "little")

    def stored_scratch(self, pages: int) -> list[bytes]:
        """The first `pages` of the scratch as the host reads them, block by block."""
        start = self.machine.helper_offset + self.scratch
        raw = b"".join(self.machine.helper_memory.read_raw(start + at, PAGE) for at in range(0, pages * PAGE, PAGE))
        return [raw[at : at + BLOCK_BYTES] for at in range(0, len(raw), BLOCK_BYTES)]


def words_of(data: bytes) -> set[bytes]:
    """Its 8-byte words that cannot be there by chance."""
    return {word for at in range(0, len(data), 8) if len(set(word := data[at : at + 8])) > 3}


class Migration:
    def __init__(self, scheme: str, start: Start) -> None:
        image = image_of(scheme, start)
        data = contents()
        self.source, self.target = Watched(image, 1, data), Watched(image, 2, b"")
        connect(self.source.ring, self.target.ring)
        self.ram = self.source.machine.guest_pages()
        for page in self.ram:
            self.target.machine.memory.spa(page)
        self.words = words_of(data)
        """What must never be there, in 8-byte words."""
        self.seen: list[set[bytes]] = [{block} for block in self.target.stored_scratch(CHUNK)]
        """What the host has seen at each block of the scratch, the state before included."""
        self.repeated: list[int] = []

    def addresses(self) -> list[int]:
        return [self.source.machine.request_address(page) for page in self.ram]

    def move(self, batch: Batch, *, urgent: bool = False) -> None:
        source, target = (side.ring.urgent if urgent else side.ring for side in (self.source, self.target))
        self.source.serve(source, batch, Op.MH_OP_EXPORT)
        packets = [source.take_sealed(slot) for slot in batch.packet_slots()]
        for slot, sealed in zip(batch.packet_slots(), packets, strict=True):
            target.put_sealed(slot, sealed)
            self._forbid(sealed)
        self.target.serve(target, batch, Op.MH_OP_IMPORT)
        self._compare(max(len(sealed.data) for sealed in packets) // PAGE)

    def _forbid(self, sealed: Sealed) -> None:
        """Nor may ciphertext be there as the host knows it, on either side, byte-swapped or not."""
        swapped = b"".join(sealed.data[at : at + 16][::-1] for at in range(0, len(sealed.data), 16))
        self.words |= words_of(sealed.data) | words_of(swapped)

    def _compare(self, pages: int) -> None:
        for number, block in enumerate(self.target.stored_scratch(pages)):
            if block in self.seen[number]:
                self.repeated.append(number)
            self.seen[number].add(block)


def rounds(addresses: list[int]) -> Iterator[Iterable[tuple[Batch, bool]]]:
    """Every page alone; in chunks; on the urgent lane: an epoch each, with the same data again and again."""
    yield [(Batch(listed=(address,)), False) for address in addresses]
    low = [address for address in addresses if address < addresses[0] + PAGES * PAGE]
    yield [(Batch(address=low[0], count=CHUNK, chunk=CHUNK), False)]
    yield [(Batch(listed=(address,)), True) for address in addresses[:3]]


@pytest.mark.parametrize("start", MIRROR_STARTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_repeats_and_nothing_is_known(scheme: str, start: Start) -> None:
    migration = Migration(scheme, start)
    for batches in rounds(migration.addresses()):
        for batch, urgent in batches:
            migration.move(batch, urgent=urgent)
        end_epoch(migration.source.ring, migration.target.ring)
    finish(migration.source.ring, migration.target.ring)
    assert migration.source.seen & migration.words == migration.target.seen & migration.words == set()
    assert migration.repeated == []
    for page in migration.ram:
        assert migration.target.machine.read_guest(page) == migration.source.machine.read_guest(page)


def test_old_memory_put_back_makes_no_mask_again() -> None:
    """A host puts the vCPU's block back as it was before an import, and gives the same packet again: the sequence is
    that of then, so the helper takes it; what lies in the scratch is another masked chunk all the same."""
    migration = Migration("regions", Start.HOST)
    address = migration.addresses()[0]
    batch = Batch(listed=(address,))
    migration.source.serve(migration.source.ring, batch, Op.MH_OP_EXPORT)
    sealed = migration.source.ring.take_sealed(0)
    target = migration.target
    section = image_of("regions", Start.HOST).section(".vcpu")
    bitmap = image_of("regions", Start.HOST).section(".bitmap")
    kept = [target.machine.helper_offset + at for at in (*range(section.offset, target.scratch, PAGE), bitmap.offset)]
    memory = target.machine.helper_memory
    before = [memory.read_raw(offset, PAGE) for offset in kept]
    head = int(target.ring.header().head)
    seen = []
    for _ in range(3):
        for offset, page in zip(kept, before, strict=True):
            memory.write_raw(offset, page)
        target.ring.put_sealed(0, sealed)
        target.serve(target.ring, batch, Op.MH_OP_IMPORT)
        # The helper counts submissions in the block that was put back: give it the same one again.
        target.ring.write(abi.mh_ring.fields["tail"].offset, head.to_bytes(4, "little"))
        target.ring._submitted = head
        seen.append(target.stored_scratch(1))
    assert all(len(set(blocks)) == 3 for blocks in zip(*seen, strict=True))


def test_where_what_is_opened_is_described_no_ring_was_ever_named() -> None:
    """Else bytes of an export, put back in the middle of an import, would send plaintext to the ring."""
    migration = Migration("regions", Start.HOST)
    batch = Batch(listed=(migration.addresses()[0],))
    both = (migration.source, migration.target)
    named: list[list[int]] = []
    for source, target in (both, both[::-1]):
        for side in both:
            abort(side.ring)
        connect(source.ring, target.ring)
        source.serve(source.ring, batch, Op.MH_OP_EXPORT)
        target.ring.put_sealed(0, source.ring.take_sealed(0))
        target.serve(target.ring, batch, Op.MH_OP_IMPORT)
        named += [[side.destination(job) for job in ("lane.job", "lane.opening")] for side in both]
    ring = image_of("regions", Start.HOST).section(".ring")
    assert [[ring.va <= place < ring.va + ring.size for place in places] for places in named] == [
        [True, False],
        [False, False],
        [False, False],
        [True, False],
    ]
    assert named[1][1] == named[2][1] != 0
