"""State to JSON and back: what is of another kind than expected is refused, and says where."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from mh_emulator.snapshot.codec import decode, encode
from mh_emulator.snapshot.errors import SnapshotError


class Inner(NamedTuple):
    """Something small."""

    on: bool
    name: str


class Outer(NamedTuple):
    """One of each kind."""

    number: int
    data: bytes
    maybe: int | None
    inner: Inner | None
    numbers: tuple[int, ...]
    by_number: dict[int, bytes]
    spans: tuple[tuple[int, ...], ...]


VALUE = Outer((1 << 64) - 1, b"\x00\xff", None, Inner(on=True, name="x"), (3, 1), {0x10: b"a", 0: b""}, ((1, 2), ()))


def test_what_is_written_is_read() -> None:
    for value in (VALUE, VALUE._replace(maybe=0, inner=None)):
        assert decode(Outer, json.loads(json.dumps(encode(value))), "it") == value
    assert encode(VALUE) == {
        "number": (1 << 64) - 1, "data": "00ff", "maybe": None, "inner": {"on": True, "name": "x"},
        "numbers": [3, 1], "by_number": {"0x0": "", "0x10": "61"}, "spans": [[1, 2], []],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"number": 1 << 64}, "it.number is 0x10000000000000000, not of 64 bits"),
        ({"number": -1}, "it.number is -0x1, not of 64 bits"),
        ({"number": True}, "it.number is a truth value, not a number"),
        ({"number": 1.0}, "it.number is a fraction, not a number"),
        ({"number": None}, "it.number is nothing, not a number"),
        ({"data": 1}, "it.data is a number, not a text"),
        ({"data": "xy"}, "it.data is 'xy', not bytes in hexadecimal"),
        ({"maybe": ""}, "it.maybe is a text, not a number"),
        ({"inner": []}, "it.inner is a list, not an object"),
        ({"inner": {"on": True}}, "it.inner has on, not name, on"),
        ({"inner": {"on": 1, "name": ""}}, "it.inner.on is a number, not a truth value"),
        ({"numbers": {}}, "it.numbers is an object, not a list"),
        ({"numbers": [1, "2"]}, "it.numbers[1] is a text, not a number"),
        ({"by_number": {"x": ""}}, "a key of it.by_number is 'x', not a hexadecimal number"),
        ({"by_number": {"-1": ""}}, "a key of it.by_number is -0x1, not of 64 bits"),
        ({"spans": [[1], 2]}, "it.spans[1] is a number, not a list"),
        ({"more": 1}, "it has by_number, data, inner, maybe, more, number, numbers, spans, not by_number, data, "),
    ],
)
def test_what_is_refused(changed: dict[str, object], message: str) -> None:
    written = encode(VALUE)
    assert isinstance(written, dict)
    with pytest.raises(SnapshotError) as caught:
        decode(Outer, written | changed, "it")
    assert str(caught.value).startswith(message)
