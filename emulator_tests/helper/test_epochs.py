"""Epochs: a page once in each, and an end on which both sides agree."""

from __future__ import annotations

import pytest

from emulator_tests.helper.conftest import PAGES, Pair, PairMaker, Status, facing
from mh_abi import abi
from mh_emulator.host.ring import HelperRefused, Request, Sealed
from mh_emulator.host.session import abort, connect, end_epoch, finish

Op = abi.mh_op
Kind = abi.mh_kind
PAGE = abi.MH_PAGE_BYTES


def both(pair: Pair, address: int) -> None:
    assert pair.target.put(address, pair.source.export(address)) == Status.MH_DONE


def test_a_page_is_moved_once_in_an_epoch_and_again_in_the_next(scheme: str, make_pair: PairMaker) -> None:
    pair = make_pair(scheme)
    address = pair.pages[PAGES - 1]
    for epoch in range(3):
        both(pair, address)
        assert pair.source.ask(Op.MH_OP_EXPORT, address) == Status.MH_REPEATED
        assert pair.target.ask(Op.MH_OP_IMPORT, address) == Status.MH_REPEATED
        assert end_epoch(pair.source.ring, pair.target.ring) == epoch + 1
    assert finish(pair.source.ring, pair.target.ring) == 3


def test_later_contents_win(pair: Pair) -> None:
    """Pre-copy: the guest changes a page after it was moved, and it is moved again."""
    machine, place = pair.source.machine, pair.source.machine.guest_pages()[0]
    both(pair, pair.pages[0])
    machine.platform.dram.write_private(machine.asid, machine.memory.spa(place), b"new" * 100)
    end_epoch(pair.source.ring, pair.target.ring)
    both(pair, pair.pages[0])
    assert pair.target_page(pair.pages[0])[:300] == b"new" * 100


def test_old_epoch_is_refused(pair: Pair) -> None:
    """A packet that the host kept back while the target went on."""
    both(pair, pair.pages[0])
    kept = pair.source.export(pair.pages[1])
    fields = abi.mh_packet(kept.packet)
    assert fields.epoch == 0
    packet, data = pair.keys.seal(bytes(4096), address=pair.pages[1], sequence=1, epoch=0)
    forged_end, nothing = pair.keys.seal(b"", kind=Kind.MH_KIND_EPOCH.value, address=1, sequence=1, epoch=0)
    assert pair.target.ask(Op.MH_OP_EPOCH, sealed=Sealed(forged_end, nothing)) == Status.MH_DONE
    assert pair.target.put(pair.pages[1], kept) == Status.MH_WRONG_EPOCH
    assert pair.target.put(pair.pages[1], Sealed(packet, data)) == Status.MH_WRONG_EPOCH


def test_epoch_packet_carries_the_epochs_pages(pair: Pair) -> None:
    for count in (2, 0, 3):
        for address in pair.pages[:count]:
            pair.source.export(address)
        assert pair.source.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
        sealed = pair.source.ring.take_sealed(0)
        fields = abi.mh_packet(sealed.packet)
        assert (fields.kind, fields.length, fields.address) == (Kind.MH_KIND_EPOCH, 0, count)
        assert pair.keys.open(sealed.packet, b"") == b""


@pytest.mark.parametrize("kind", [Kind.MH_KIND_EPOCH, Kind.MH_KIND_END])
def test_wrong_total_ends_the_session(pair: Pair, kind: int) -> None:
    both(pair, pair.pages[0])
    op = Op.MH_OP_EPOCH if kind == Kind.MH_KIND_EPOCH else Op.MH_OP_FINISH
    packet, data = pair.keys.seal(b"", kind=int(kind), address=2, sequence=1)
    assert pair.target.ask(op, sealed=Sealed(packet, data)) == Status.MH_BAD_TOTALS
    assert pair.target.ask(Op.MH_OP_IMPORT, pair.pages[1]) == Status.MH_WRONG_STATE


def test_dropped_page_holds_the_epoch(pair: Pair) -> None:
    both(pair, pair.pages[0])
    pair.source.export(pair.pages[1])
    with pytest.raises(HelperRefused, match="^helper refuses epoch: MH_OUT_OF_ORDER$"):
        end_epoch(pair.source.ring, pair.target.ring)


def test_epoch_packet_is_no_end_and_no_page(pair: Pair) -> None:
    assert pair.source.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
    sealed = pair.source.ring.take_sealed(0)
    assert pair.target.ask(Op.MH_OP_FINISH, sealed=sealed) == Status.MH_BAD_PACKET
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_BAD_PACKET
    assert pair.target.ask(Op.MH_OP_EPOCH, sealed=sealed) == Status.MH_DONE


def test_epoch_packet_is_not_replayed(pair: Pair) -> None:
    assert end_epoch(pair.source.ring, pair.target.ring) == 1
    sealed = pair.source.ring.take_sealed(0)
    assert pair.target.ask(Op.MH_OP_EPOCH, sealed=sealed) == Status.MH_WRONG_EPOCH


def test_new_session_starts_at_epoch_zero_with_no_page_moved(pair: Pair) -> None:
    both(pair, pair.pages[0])
    end_epoch(pair.source.ring, pair.target.ring)
    both(pair, pair.pages[1])
    abort(pair.source.ring)
    abort(pair.target.ring)
    connect(pair.source.ring, pair.target.ring)
    for address in pair.pages[:2]:
        sealed = pair.source.export(address)
        assert abi.mh_packet(sealed.packet).epoch == 0
        assert pair.target.put(address, sealed) == Status.MH_DONE
    assert finish(pair.source.ring, pair.target.ring) == 2


def test_restarted_helper_has_forgotten_what_was_moved(pair: Pair) -> None:
    pair.source.export(pair.pages[0])
    ring = pair.source.machine.start_helper()
    pair.source.ring = ring
    facing(pair.source, abi.mh_role.MH_ROLE_SOURCE)
    assert abi.mh_packet(pair.source.export(pair.pages[0]).packet).sequence == 0


def test_completions_tell_epoch_and_pages(pair: Pair) -> None:
    pair.source.export(pair.pages[0])
    pair.source.export(pair.pages[1])
    answer = pair.source.ring.serve([Request(Op.MH_OP_EPOCH)])[0]
    assert (answer.epoch, answer.pages) == (1, 2)


def test_bitmap_at_word_borders(make_pair: PairMaker) -> None:
    """Bits of neighbouring pages and words are told apart, also across the borders of a word."""
    pair = make_pair("regions")
    pages = [63 * PAGE, 64 * PAGE, 127 * PAGE, 1024 * PAGE]
    for page in pages:
        assert pair.source.ask(Op.MH_OP_EXPORT, page) == Status.MH_DONE
    for page in (62 * PAGE, 65 * PAGE, 126 * PAGE, 128 * PAGE, 1023 * PAGE, 1025 * PAGE):
        assert pair.source.ask(Op.MH_OP_EXPORT, page) == Status.MH_DONE
    for page in pages:
        assert pair.source.ask(Op.MH_OP_EXPORT, page) == Status.MH_REPEATED
    assert pair.source.ask(Op.MH_OP_EPOCH) == Status.MH_DONE
    for page in pages:
        assert pair.source.ask(Op.MH_OP_EXPORT, page) == Status.MH_DONE
