"""Key schedules that a fault in memory has damaged: nothing is sealed or opened with them, and the session ends."""

from __future__ import annotations

import pytest

from emulator_tests.helper.conftest import Op, Pair, Status, is_over
from emulator_tests.helper.test_strict import Strict, image_of
from mh_abi import abi
from mh_builder.image.model import Image
from mh_emulator.host.machine import Machine

PAGE = abi.MH_PAGE_BYTES
BEHIND_THE_KEY = 48
"""Into a schedule: the third round key."""


@pytest.fixture
def place(pair: Pair, images: dict[str, Image]) -> int:
    """Where in a vCPU's block the schedule of the bulk lane's key begins."""
    section = images["regions"].section(".vcpu")
    offsets = range(section.offset, section.offset + section.size, PAGE)
    block = b"".join(pair.source.machine.read_helper(offset, PAGE) for offset in offsets)
    assert block.count(pair.keys.page_key) == 1
    return block.index(pair.keys.page_key)


def damage(machine: Machine, image: Image, place: int) -> None:
    """Flip a bit of a schedule in the first vCPU's block."""
    offset = image.section(".vcpu").offset + place + BEHIND_THE_KEY
    machine.write_helper(offset, bytes([machine.read_helper(offset, 1)[0] ^ 0x10]))


def test_no_page_is_exported(pair: Pair, images: dict[str, Image], place: int) -> None:
    damage(pair.source.machine, images["regions"], place)
    assert pair.source.ask(Op.MH_OP_EXPORT, pair.pages[0]) == Status.MH_NO_KEY
    assert is_over(pair.source)


def test_no_page_is_imported(pair: Pair, images: dict[str, Image], place: int) -> None:
    sealed = pair.source.export(pair.pages[0])
    before = pair.target_page(pair.pages[0])
    damage(pair.target.machine, images["regions"], place)
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_NO_KEY
    assert is_over(pair.target)
    assert pair.target_page(pair.pages[0]) == before


@pytest.mark.parametrize("op", [Op.MH_OP_EPOCH, Op.MH_OP_FINISH])
def test_no_total_is_sealed(pair: Pair, images: dict[str, Image], place: int, op: abi.mh_op) -> None:
    pair.source.export(pair.pages[0])
    damage(pair.source.machine, images["regions"], place)
    assert pair.source.ask(op) == Status.MH_NO_KEY
    assert is_over(pair.source)


@pytest.mark.parametrize("op", [Op.MH_OP_EPOCH, Op.MH_OP_FINISH])
def test_no_total_is_opened(pair: Pair, images: dict[str, Image], place: int, op: abi.mh_op) -> None:
    sealed = pair.source.totals(op)
    damage(pair.target.machine, images["regions"], place)
    assert pair.target.ask(op, sealed=sealed) == Status.MH_NO_KEY
    assert is_over(pair.target)


def test_nothing_is_proven_unchanged(place: int) -> None:
    """Not even what is: the strict finish seals again what was exported."""
    guest = Strict()
    guest.move(0, 1)
    damage(guest.source, image_of("regions"), place)
    assert guest.finish_source() == Status.MH_CHANGED
