"""Packets are AES-256-GCM over what abi.h says, under keys that follow from transport key and scalar."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidTag

from emulator_tests.helper.conftest import Pair, PairMaker, Status
from mh_abi import abi
from mh_emulator.host.ring import Sealed


def test_packets_open_with_cryptography(scheme: str, make_pair: PairMaker) -> None:
    pair = make_pair(scheme)
    for number, address in enumerate(pair.pages):
        sealed = pair.source.export(address)
        fields = abi.mh_packet(sealed.packet)
        at = number * abi.MH_PAGE_BYTES
        assert pair.keys.open(sealed.packet, sealed.data) == pair.contents[at : at + abi.MH_PAGE_BYTES]
        assert (fields.magic, fields.version, fields.kind) == (
            abi.MH_PACKET_MAGIC,
            abi.MH_PROTOCOL_HIGH,
            abi.mh_kind.MH_KIND_PAGE,
        )
        assert (fields.sequence, fields.address, fields.epoch, fields.stream) == (number, address, 0, 0)


def test_another_key_opens_nothing(pair: Pair) -> None:
    sealed = pair.source.export(pair.pages[0])
    other = replace(pair.keys, page_key=bytes(32))
    with pytest.raises(InvalidTag):
        other.open(sealed.packet, sealed.data)


def test_packets_made_by_cryptography_are_imported(scheme: str, make_pair: PairMaker) -> None:
    pair = make_pair(scheme)
    page = bytes(range(256)) * 16
    packet, data = pair.keys.seal(page, address=pair.pages[3], sequence=0)
    assert pair.target.put(pair.pages[3], Sealed(packet, data)) == Status.MH_DONE
    assert pair.target_page(pair.pages[3]) == page


@pytest.mark.parametrize("bit", [0, 7, 32, 63])
def test_a_packet_of_a_page_counts_no_urgent_ones(pair: Pair, bit: int) -> None:
    """Its field for them is refused before the tag, whoever has set it: the session goes on."""
    sealed = pair.source.export(pair.pages[0])
    fields = abi.mh_packet(sealed.packet)
    fields.urgent = 1 << bit
    assert pair.target.put(pair.pages[0], Sealed(fields.dumps(), sealed.data)) == Status.MH_BAD_PACKET
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_DONE


def test_end_packet_carries_the_total(pair: Pair) -> None:
    for address in pair.pages:
        pair.source.export(address)
    end = pair.source.totals(abi.mh_op.MH_OP_FINISH)
    assert pair.keys.open(end.packet, b"") == b""
    fields = abi.mh_packet(end.packet)
    assert (fields.kind, fields.length, fields.address, fields.sequence) == (
        abi.mh_kind.MH_KIND_END,
        0,
        len(pair.pages),
        len(pair.pages),
    )


def test_no_two_packets_share_an_iv(pair: Pair) -> None:
    packets = []
    for _ in range(20):
        packets += [pair.source.export(page).packet for page in pair.pages]
        assert pair.source.ask(abi.mh_op.MH_OP_EPOCH) == Status.MH_DONE
        packets.append(pair.source.ring.take_sealed(0).packet)
    ivs = {packet[abi.MH_PACKET_IV_OFFSET : abi.MH_PACKET_IV_OFFSET + abi.MH_PACKET_IV_BYTES] for packet in packets}
    assert len(ivs) == len(packets)
