"""The owner's record in the launch secret: a helper that does not understand all of it has no key."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from emulator_tests.helper.conftest import SECRET, Op, Status, lonely
from emulator_tests.helper.test_refusals import put_secret
from mh_abi import abi
from mh_builder.image.model import Image
from mh_emulator.host.ring import Request
from mh_emulator.host.side import Side
from mh_emulator.peer import Peer
from mh_emulator.secret import Secret, guided

PAGE = abi.MH_PAGE_BYTES
ENTRY = abi.MH_SECRET_ENTRY_BYTES


@pytest.fixture
def side(images: dict[str, Image]) -> Side:
    return lonely(images)


def answers(side: Side, secret: bytes) -> tuple[abi.mh_status, abi.mh_status]:
    """What HELLO says to a secret page, and START where the record was good at the HELLO before."""
    put_secret(side, secret.ljust(PAGE, b"\0"))
    hello = side.ask(Op.MH_OP_HELLO)
    put_secret(side, SECRET.table().ljust(PAGE, b"\0"))
    assert side.ask(Op.MH_OP_HELLO) == Status.MH_DONE
    put_secret(side, secret.ljust(PAGE, b"\0"))
    side.ring.put_packet(0, Peer(SECRET).hello)
    start = side.ring.serve([Request(Op.MH_OP_START, role=abi.mh_role.MH_ROLE_SOURCE, count=1)])[0].status
    side.ask(Op.MH_OP_ABORT)
    return hello, start


NO_KEY = Status.MH_NO_KEY, Status.MH_NO_KEY

BAD: dict[str, dict[str, Any]] = {
    "earlier-version": {"version": abi.MH_SECRET_VERSION - 1},
    "later-version": {"version": abi.MH_SECRET_VERSION + 1},
    "version-in-the-upper-byte": {"version": abi.MH_SECRET_VERSION << 8},
    "no-protection": {"protection": 0},
    "unknown-protection": {"protection": abi.mh_protection.MH_PROTECTION_SEV_SNP.value + 1},
    "protection-in-the-upper-byte": {"protection": 0x100},
    "largest-protection": {"protection": 0xFFFF},
    "unknown-flag": {"flags": abi.MH_OWNER_STRICT << 1},
    "unknown-flag-beside": {"flags": abi.MH_OWNER_STRICT | 1 << 31},
}


@pytest.mark.parametrize("case", BAD)
def test_a_record_that_is_not_understood(side: Side, case: str) -> None:
    assert answers(side, replace(SECRET, **BAD[case]).table()) == NO_KEY


@pytest.mark.parametrize("bit", [0, 7, 31, 32, 63])
def test_a_reserved_bit(side: Side, bit: int) -> None:
    record = abi.mh_secret(SECRET.record())
    record.reserved = 1 << bit
    assert answers(side, table(record.dumps())) == NO_KEY


@pytest.mark.parametrize("change", [-1, 1, -len(abi.mh_secret)])
def test_a_record_of_another_length(side: Side, change: int) -> None:
    """The longer one ends as far from the end of its entry as the shorter one."""
    record = SECRET.record()
    assert answers(side, table(record[:change] if change < 0 else record + bytes(change))) == NO_KEY


def table(record: bytes) -> bytes:
    return guided(abi.MH_SECRET_TABLE_GUID, guided(abi.MH_SECRET_RECORD_GUID, record))


@pytest.mark.parametrize("protection", list(abi.mh_protection))
def test_every_protection_that_there_is(side: Side, protection: int) -> None:
    hello, start = answers(side, replace(SECRET, protection=int(protection)).table())
    assert hello == Status.MH_DONE
    least = abi.mh_protection.MH_PROTECTION_SEV
    assert start == (Status.MH_DONE if protection == least else Status.MH_WEAKER_PEER)


def test_the_first_record_counts(side: Side) -> None:
    """Of two in one table, whatever the second one is."""
    other = replace(SECRET, guest=bytes(16), key=bytes(32))
    for first, second, start in ((SECRET, other, Status.MH_DONE), (other, SECRET, Status.MH_OTHER_GUEST)):
        entries = b"".join(guided(abi.MH_SECRET_RECORD_GUID, secret.record()) for secret in (first, second))
        assert answers(side, guided(abi.MH_SECRET_TABLE_GUID, entries)) == (Status.MH_DONE, start)


@pytest.mark.parametrize("room", range(-len(SECRET.table()), 0, 12))
def test_a_table_at_the_end_of_the_page(side: Side, room: int) -> None:
    """An entry before the record moves it to the end of the page, and then further: nothing behind it is read."""
    entry = guided(abi.MH_SECRET_RECORD_GUID, SECRET.record())
    filler = guided("00000000-0000-0000-0000-000000000001", bytes(PAGE - 2 * ENTRY - len(SECRET.table()) - room))
    whole = guided(abi.MH_SECRET_TABLE_GUID, filler + entry)
    expected = (Status.MH_DONE, Status.MH_DONE) if len(whole) <= PAGE else NO_KEY
    assert answers(side, whole[:PAGE]) == expected


@pytest.mark.parametrize("size", [PAGE, PAGE + 1, 1 << 31])
def test_a_table_is_a_page_at_most(side: Side, size: int) -> None:
    """It says so itself; the record is at its beginning."""
    whole = SECRET.table()
    whole = whole[:16] + size.to_bytes(4, "little") + whole[ENTRY:]
    assert answers(side, whole) == ((Status.MH_DONE, Status.MH_DONE) if size <= PAGE else NO_KEY)


@pytest.mark.parametrize("byte", [0, 7, 8, 15])
def test_another_table(side: Side, byte: int) -> None:
    whole = bytearray(SECRET.table())
    whole[byte] ^= 1
    assert answers(side, bytes(whole)) == NO_KEY


@pytest.mark.parametrize("size", [0, 1, ENTRY - 1])
def test_an_entry_shorter_than_its_own_head(side: Side, size: int) -> None:
    """Nothing says where the next one begins: what lies behind it is not looked for."""
    short = guided("00000000-0000-0000-0000-000000000001", b"")[:16] + size.to_bytes(4, "little")
    entries = short + guided(abi.MH_SECRET_RECORD_GUID, SECRET.record())
    assert answers(side, guided(abi.MH_SECRET_TABLE_GUID, entries)) == NO_KEY


def test_noise(side: Side) -> None:
    """What a wrong memory key makes of the page; also behind a table's GUID, and behind a record's."""
    source = random.Random("noise")
    good = SECRET.table()
    for length in (0, 16, 20, 36, 40):
        for _ in range(20):
            page = good[:length] + source.randbytes(PAGE - length)
            assert answers(side, page) == NO_KEY
    for _ in range(100):
        # Lengths that look like some.
        sizes = [source.choice([0, 19, 20, 21, 40, 84, 104, PAGE - 20, PAGE, PAGE + 1, 1 << 31, 0xFFFFFFFF])] * 2
        noise = good[:16] + sizes[0].to_bytes(4, "little") + source.randbytes(16) + sizes[1].to_bytes(4, "little")
        assert answers(side, noise + source.randbytes(PAGE - len(noise))) == NO_KEY


def test_the_record_is_as_the_owner_wrote_it() -> None:
    """The layout of abi.h, byte by byte."""
    secret = Secret(bytes(range(32)), bytes(range(100, 116)), protection=3, flags=1)
    assert secret.record() == (
        (1).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little") + bytes(8)
        + bytes(range(100, 116)) + bytes(range(32))
    )  # fmt: skip
