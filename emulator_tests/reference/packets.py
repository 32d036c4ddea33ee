"""Packets of a stream: the next one, what is wrong with another, sealed and opened."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag

from emulator_tests.reference.lane import Lane
from mh_abi import abi
from mh_emulator.peer import StreamKeys

Kind = abi.mh_kind
Status = abi.mh_status


def expected(lane: Lane, kind: int, length: int, address: int, epoch: int, urgent: int = 0) -> abi.mh_packet:
    """The header of the next packet of a lane's stream."""
    keys = keys_of(lane)
    return abi.mh_packet(
        magic=abi.MH_PACKET_MAGIC,
        version=keys.protocol,
        kind=kind,
        length=length,
        stream=lane.stream,
        sequence=lane.sequence,
        address=address,
        epoch=epoch,
        session=list(keys.session),
        urgent=urgent,
    )


def keys_of(lane: Lane) -> StreamKeys:
    """The keys of a lane whose ring has a session."""
    if lane.keys is None:
        raise AssertionError(f"stream {lane.stream:#x} has no session")
    return lane.keys


def page_refusal(found: abi.mh_packet, wanted: abi.mh_packet) -> abi.mh_status:
    """What is wrong with the packet of a chunk."""
    if found.urgent:
        return Status.MH_BAD_PACKET
    return (
        _shape_refusal(found, wanted)
        or (Status.MH_WRONG_ADDRESS if found.address != wanted.address else Status.MH_DONE)
        or _turn_refusal(found, wanted)
    )


def end_refusal(found: abi.mh_packet, wanted: abi.mh_packet) -> abi.mh_status:
    """What is wrong with a packet that ends an epoch or a session; its tag is not looked at yet."""
    if found.kind != wanted.kind:
        return Status.MH_BAD_PACKET
    return (
        _shape_refusal(found, wanted)
        or _turn_refusal(found, wanted)
        or (Status.MH_INCOMPLETE if found.urgent != wanted.urgent else Status.MH_DONE)
        or (Status.MH_BAD_TOTALS if found.address != wanted.address else Status.MH_DONE)
    )


def _shape_refusal(found: abi.mh_packet, wanted: abi.mh_packet) -> abi.mh_status:
    same = all(getattr(found, name) == getattr(wanted, name) for name in ("magic", "version", "length"))
    if not same or found.reserved:
        return Status.MH_BAD_PACKET
    if bytes(found.session) != bytes(wanted.session):
        return Status.MH_WRONG_SESSION
    if found.stream != wanted.stream:
        return Status.MH_WRONG_STREAM
    return Status.MH_DONE


def _turn_refusal(found: abi.mh_packet, wanted: abi.mh_packet) -> abi.mh_status:
    if found.epoch != wanted.epoch:
        return Status.MH_WRONG_EPOCH
    if found.sequence < wanted.sequence:
        return Status.MH_REPLAYED
    if found.sequence > wanted.sequence:
        return Status.MH_OUT_OF_ORDER
    return Status.MH_DONE


def seal(lane: Lane, slot: int, header: abi.mh_packet, plain: bytes) -> None:
    """Spend the sequence number, and leave packet and data at `slot`."""
    lane.sequence += 1
    fields = {name: getattr(header, name) for name in abi.mh_packet.fields if name != "tag"}
    packet, data = keys_of(lane).seal(plain, **fields)
    lane.put_data(slot, data)
    lane.put_packet(slot, packet)


def open_(lane: Lane, slot: int, header: abi.mh_packet, size: int) -> bytes | None:
    """The `size` bytes of plaintext at `slot`, under the header that is expected; None under a wrong tag."""
    packet = header.dumps()[: abi.MH_PACKET_AAD_BYTES] + lane.packet(slot)[abi.MH_PACKET_AAD_BYTES :]
    try:
        plain = keys_of(lane).open(packet, lane.data(slot, size))
    except InvalidTag:
        return None
    lane.sequence += 1
    return plain
