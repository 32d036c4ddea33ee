"""Nothing that a host writes into submissions, lists and packets comes into private memory as it was written.

Memory encryption has no integrity: ciphertext that once stood for chosen bytes could be put back, at its own address,
in the place of a pointer, a key or a return address.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from emulator_tests.helper.conftest import PAGES, SECRET, Op, Status, contents_of, facing, launched
from emulator_tests.helper.memory import registers, working_memory
from emulator_tests.helper.rings import image_of
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.parts import PARTS
from mh_emulator.host.ring import Lane, Sealed
from mh_emulator.host.side import Side
from mh_emulator.peer import Peer, StreamKeys

PAGE = abi.MH_PAGE_BYTES
ENTRY = len(abi.mh_submission)
Role = abi.mh_role
SMALL = 0x10000
"""Fields below this are documented: role, slot, count, chunk and flags within their bounds."""


def side_in(role: int | None) -> tuple[Side, StreamKeys | None]:
    """A helper without a session, or with one in `role`."""
    machine = launched(parse_image(image_of(1).data), PARTS["milan"], 1, contents_of(PAGES))
    side = Side(machine, machine.start_helper())
    return side, None if role is None else facing(side, role).stream(0)


def memory_of(side: Side) -> bytes:
    """And what registers hold at a halt: under SEV-ES the CPU puts them into memory."""
    return working_memory(image_of(1), side.machine) + registers(side.machine)


def chosen(record: bytes) -> set[bytes]:
    """Words of it, at every offset, that cannot be there by chance nor as a small field."""
    words = {record[at : at + 8] for at in range(len(record) - 7)}
    return {word for word in words if int.from_bytes(word, "little") >= SMALL and len(set(word)) > 4}


def assert_unknown(side: Side, *records: bytes) -> None:
    memory = memory_of(side)
    assert {word for record in records for word in chosen(record) if word in memory} == set()


def submit(lane: Lane, entry: bytes) -> abi.mh_status:
    """These 64 bytes; the helper must complete them, whatever they are."""
    lane.submit(entry)
    lane.run()
    return lane.completion(lane.completed - 1).status


def random_entries(seed: int, count: int) -> Iterator[bytes]:
    """Noise; noise behind an op that there is; and submissions that are right but for one field, or altogether."""
    source = random.Random(seed)
    fields = list(abi.mh_submission.fields.values())
    for number in range(count):
        op = source.choice(list(Op)).to_bytes(2, "little")
        noise = source.randbytes(ENTRY)
        right = abi.mh_submission(op=int.from_bytes(op, "little"), cookie=source.getrandbits(64)).dumps()
        field = source.choice(fields[1:])
        spoiled = right[: field.offset] + source.randbytes(len(field.type)) + right[field.offset + len(field.type) :]
        yield (noise, op + noise[2:], spoiled, right)[number % 4]


@pytest.mark.parametrize("role", [None, Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET])
def test_any_submission(role: int | None) -> None:
    side, _ = side_in(role)
    for entry in random_entries(seed=1 if role is None else role + 1, count=200):
        submit(side.ring, entry)
        assert_unknown(side, entry)
        submit(side.ring.urgent, entry)
        assert_unknown(side, entry)


def test_the_search_finds_what_is_there() -> None:
    """An address below the limit is kept: it is one of a page, and the lane says at which page it is."""
    side, _ = side_in(Role.MH_ROLE_SOURCE)
    assert side.ask(Op.MH_OP_EXPORT, 0x2000) == Status.MH_DONE
    assert (0x2000).to_bytes(8, "little") in memory_of(side)


@pytest.mark.parametrize("op", [Op.MH_OP_EXPORT, Op.MH_OP_SHARE, Op.MH_OP_IMPORT])
@pytest.mark.parametrize("urgent", [False, True])
def test_any_address(op: int, urgent: bool) -> None:
    """As a run and in a list: out of range, not aligned, with the C-bit, or anything at all."""
    side, _ = side_in(Role.MH_ROLE_TARGET if op == Op.MH_OP_IMPORT else Role.MH_ROLE_SOURCE)
    lane = side.ring.urgent if urgent else side.ring
    source = random.Random(2)
    for number in range(60):
        address = source.getrandbits(64) & (-PAGE if number % 2 else -1)
        record = address.to_bytes(8, "little")
        lane.put_list(0, [address] * 4)
        listed = abi.mh_submission(op=int(op), count=4, chunk=1, flags=abi.MH_BATCH_LIST, cookie=source.getrandbits(64))
        run = abi.mh_submission(op=int(op), count=4, chunk=1 + number % 4, address=address)
        for entry in (listed.dumps(), run.dumps()):
            submit(lane, entry)
            assert_unknown(side, record, entry)


@pytest.mark.parametrize("op", [Op.MH_OP_IMPORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH])
def test_any_packet(op: int) -> None:
    """Right but for one field that is the host's choice, also where only the tag tells: nothing of it stays."""
    side, keys = side_in(Role.MH_ROLE_TARGET)
    source = random.Random(3)
    kinds = {Op.MH_OP_IMPORT: abi.mh_kind.MH_KIND_PAGE, Op.MH_OP_EPOCH: abi.mh_kind.MH_KIND_EPOCH}
    kind = kinds.get(Op(op), abi.mh_kind.MH_KIND_END)
    for field in abi.mh_packet.fields.values():
        for _ in range(3):
            assert keys is not None
            plain = source.randbytes(PAGE) if op == Op.MH_OP_IMPORT else b""
            packet, data = keys.seal(plain, kind=kind.value)
            size = len(field.type)
            packet = packet[: field.offset] + source.randbytes(size) + packet[field.offset + size :]
            assert side.ask(op, 0, Sealed(packet, data)) != Status.MH_DONE
            assert_unknown(side, packet[field.offset : field.offset + size].ljust(8, b"\0"), data)
            if side.ask(Op.MH_OP_RESUME) == Status.MH_WRONG_STATE:
                keys = facing(side, Role.MH_ROLE_TARGET).stream(0)


def test_noise_in_the_place_of_a_packet_or_a_hello() -> None:
    side, _ = side_in(Role.MH_ROLE_TARGET)
    source = random.Random(4)
    for op in (Op.MH_OP_IMPORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH) * 10:
        noise = Sealed(source.randbytes(len(abi.mh_packet)), source.randbytes(PAGE))
        assert side.ask(op, 0, noise) == Status.MH_BAD_PACKET
        assert_unknown(side, noise.packet, noise.data)
    side.ask(Op.MH_OP_ABORT)
    assert side.ask(Op.MH_OP_HELLO) == Status.MH_DONE
    start = abi.mh_submission(op=int(Op.MH_OP_START), role=1, count=1)
    for number in range(20):
        noise_hello = source.randbytes(len(abi.mh_hello))
        if number % 2:
            # Up to the tag, or to the versions.
            right = Peer(SECRET).hello
            noise_hello = right[: abi.MH_HELLO_MAC_BYTES] + noise_hello[abi.MH_HELLO_MAC_BYTES :]
        side.ring.put_packet(0, noise_hello)
        assert submit(side.ring, start.dumps()) in {Status.MH_NOT_HELLO, Status.MH_BAD_HELLO}
        assert_unknown(side, noise_hello[32:112], noise_hello[112:])


def test_a_hello_that_was_taken_is_gone_after_the_start() -> None:
    side, _ = side_in(None)
    peer = Peer(SECRET)
    facing(side, Role.MH_ROLE_SOURCE, peer)
    assert_unknown(side, peer.hello[32:112], peer.hello[112:])


@pytest.mark.parametrize("name", ["tail", "urgent_tail"])
def test_tails(name: str) -> None:
    """An impossible one breaks the ring; it is a number of 32 bits, and not even that stays."""
    side, _ = side_in(Role.MH_ROLE_SOURCE)
    side.ring.write(abi.mh_ring.fields[name].offset, (0xDEADBEEF).to_bytes(4, "little"))
    side.machine.mirror.run()
    assert side.ring.header().state == abi.mh_ring_state.MH_RING_BROKEN
    assert (0xDEADBEEF).to_bytes(4, "little") not in memory_of(side)
