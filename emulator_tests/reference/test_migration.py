"""A guest moves between the linked helper and the reference, in either direction, on two rings and both lanes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from emulator_tests.reference.beside import Reference
from emulator_tests.reference.linked import SEED, Linked
from emulator_tests.reference.terms import PAGE, PLAIN, RAM_LIMIT, RINGS
from mh_abi import abi
from mh_emulator.host.ring import Lane, Ring
from mh_emulator.host.session import Batch, connect_all, end_epoch, export_batch, finish, import_batch, resume, runs

VMSA = Batch(address=0, count=3, flags=abi.MH_BATCH_VMSA)


@dataclass
class Side:
    """A guest and the rings of its helper."""

    guest: Linked | Reference
    rings: list[Ring]


def linked() -> Side:
    guest = Linked()
    return Side(guest, guest.machine.rings)


def reference() -> Side:
    guest = Reference(seed=SEED + 1)
    shared = guest.helper.shared
    return Side(guest, [Ring(shared, n * abi.MH_RING_BYTES, guest.helper.vcpus[n].run) for n in range(RINGS)])


def move(source: Lane, target: Lane, batch: Batch) -> None:
    packets, exported = export_batch(source, batch)
    assert import_batch(target, batch, packets) == exported
    assert {result.status for result in exported} == {abi.mh_status.MH_DONE}


def move_all(source: Side, target: Side, chunk: int) -> None:
    """Pages of RAM by turns on the rings; every fourth batch is one of single pages on the urgent lanes."""
    ram = [page for page in PLAIN.pages if page < RAM_LIMIT]
    for number, batch in enumerate(runs(ram, chunk, longest=8)):
        source_ring, target_ring = source.rings[number % RINGS], target.rings[number % RINGS]
        if number % 4 == 3:
            listed = tuple(range(batch.address, batch.address + batch.count * PAGE, PAGE))
            move(source_ring.urgent, target_ring.urgent, Batch(listed=listed))
        else:
            move(source_ring, target_ring, batch)


@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize(("of", "to"), [(linked, reference), (reference, linked)], ids=["to-python", "from-python"])
def test_a_guest_moves(of: Callable[[], Side], to: Callable[[], Side], chunk: int) -> None:
    """In two epochs, with what it has changed in between."""
    source, target, random = of(), to(), Random(chunk)
    for page in range(0, len(PLAIN.pages), 2):
        source.guest.write(page, random.randbytes(PAGE))
    connect_all(source.rings, target.rings)
    move_all(source, target, chunk)
    move(source.rings[1], target.rings[1], VMSA)
    assert [end_epoch(*both) for both in zip(source.rings, target.rings, strict=True)] == [0, 1]
    source.guest.write(5, random.randbytes(PAGE))
    source.guest.write(8, bytes(PAGE))
    for number, page in enumerate((5, 8)):
        move(source.rings[number], target.rings[number], Batch(address=page * PAGE, count=1))
    for side in (source, target):
        resume(side.rings)
    totals = [finish(*both) for both in zip(source.rings, target.rings, strict=True)]
    ram = sum(page < RAM_LIMIT for page in PLAIN.pages)
    assert totals[-1] == ram + VMSA.count + 2
    there = source.guest.read()[: ram + VMSA.count]
    assert target.guest.read()[: ram + VMSA.count] == there
    assert len(set(there)) > ram // 2
