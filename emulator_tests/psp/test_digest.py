"""The digest of a launch, whose beginning is remembered."""

from __future__ import annotations

import hashlib
import random

from mh_emulator.psp.digest import LaunchDigest

_LARGE = 1 << 20


def _digest(*pieces: bytes) -> bytes:
    found = LaunchDigest()
    for piece in pieces:
        found.update(piece)
    return found.digest()


def test_it_is_that_of_all_bytes_whatever_was_measured_before() -> None:
    """Beginnings that are equal, that differ in their last byte alone, and in their length."""
    data = random.Random(1).randbytes(_LARGE)
    other = data[:-1] + bytes([data[-1] ^ 1])
    for pieces in ([data], [data, b"a"], [other], [data, other], [data + b"b"], [b"c", data], [data, b"a"], []):
        assert _digest(*pieces) == hashlib.sha256(b"".join(pieces)).digest()


def test_what_follows_a_beginning_is_no_part_of_it() -> None:
    data = random.Random(2).randbytes(_LARGE)
    first, second = LaunchDigest(), LaunchDigest()
    first.update(data)
    second.update(data)
    first.update(b"first")
    assert second.digest() == hashlib.sha256(data).digest()
    assert first.digest() == hashlib.sha256(data + b"first").digest()


def test_more_beginnings_than_are_remembered() -> None:
    pieces = [n.to_bytes(4, "little") * (_LARGE // 4) for n in range(40)]
    for _ in range(2):
        assert [_digest(piece) for piece in pieces] == [hashlib.sha256(piece).digest() for piece in pieces]
