"""What is refused of the file of a snapshot, in one line, whoever has written it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from emulator_tests.linux.kept import TINY, Place, boot, guest
from emulator_tests.linux.small import kernel
from emulator_tests.linux.test_small import RAM
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_emulator.linux.kernel import read_kernel
from mh_emulator.linux.launch import Running
from mh_emulator.platform import Platform
from mh_emulator.q35 import saved
from mh_emulator.q35.board import Telling
from mh_emulator.snapshot import file
from mh_emulator.snapshot.codec import encode
from mh_emulator.snapshot.errors import SnapshotError
from mh_emulator.snapshot.shelf import Saved


@pytest.fixture(scope="module")
def tiny(images: Mapping[str, Image]) -> bytes:
    """A snapshot of `TINY`."""
    place = Place([])
    boot(guest(images, TINY), place).run()
    return place.files[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"part": PARTS["genoa"]}, "part: milan in the snapshot, genoa here"),
        ({"ram_bytes": 256 << 20}, "RAM: 0x8000000 bytes in the snapshot, 0x10000000 bytes here"),
        ({"scheme": "isolated"}, "scheme: regions in the snapshot, isolated here"),
    ],
)
def test_another_guest_is_refused(
    images: Mapping[str, Image], tiny: bytes, changed: dict[str, object], message: str
) -> None:
    other = replace(guest(images, TINY), **changed)  # type: ignore[arg-type]
    with pytest.raises(SnapshotError) as caught:
        boot(other, Place([tiny])).run()
    assert str(caught.value) == message


def test_another_kernel_is_refused(images: Mapping[str, Image], tiny: bytes) -> None:
    ours, other = (read_kernel(kernel(text)) for text in (TINY, f"{TINY}\n nop"))
    digests = [hashlib.sha256(one.head + one.code).hexdigest() for one in (ours, other)]
    with pytest.raises(SnapshotError) as caught:
        boot(guest(images, f"{TINY}\n nop"), Place([tiny])).run()
    assert str(caught.value) == f"kernel: SHA-256 {digests[0]} in the snapshot, SHA-256 {digests[1]} here"


WRONG: list[object] = [None, -1, 1 << 64, (1 << 64) - 1, 1.5, "x", "", "00", True, [], [1, 2, 3], {}, {"0x1": 1}]


def leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where something is: everything in objects, and the first of each list."""
    yield path
    inner = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, one in inner:
        yield from leaves(one, (*path, key))


def replaced(value: object, path: tuple[str | int, ...], by: object) -> object:
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
    copy[path[0]] = replaced(copy[path[0]], path[1:], by)  # type: ignore[index]
    return copy


def test_a_state_that_somebody_has_made_up_is_refused_in_one_line(images: Mapping[str, Image], tiny: bytes) -> None:
    """Or taken, where it is one that a guest can be in; nothing else is raised, whatever is where."""
    contents = file.read(tiny)
    state, running = contents.head["state"], launched(images)
    places = [path for path in leaves(state) if "msrs" not in path[:-1] or path[-1] == "0x1b"]
    # What MSRs name gets a frame, and all that is tried behind them would be refused for that.
    places.sort(key=lambda path: "msr_devices" in path)
    told = [_told(running, replaced(state, path, wrong), contents.body) for path in places for wrong in WRONG]
    assert [text for text in told if "\n" in text] == []
    assert len([text for text in told if text]) > 9 * len(places)
    whole = launched(images)
    assert _told(whole, state, contents.body) == ""
    again, body = saved.take(whole.machine, whole.board)
    assert encode(again) == state
    assert b"".join(body) == contents.body


def launched(images: Mapping[str, Image]) -> Running:
    found = guest(images, TINY)
    return found.way.power_on(Platform(found.part, RAM + (96 << 20), 1), Telling(lambda _: None, lambda _: None))


def _told(running: Running, state: object, body: memoryview) -> str:
    try:
        saved.put(running.machine, running.board, state, body)
    except SnapshotError as error:
        return str(error)
    return ""


def signed(data: bytes, *, head: object = None, body: bytes | None = None, version: int = file.VERSION) -> bytes:
    """The file with another head, body or version, and the digest that goes with that."""
    contents = file.read(data)
    text = json.dumps(contents.head if head is None else head).encode() if not isinstance(head, bytes) else head
    frames = bytes(contents.body) if body is None else body
    header = struct.pack("<8sIIQ", file.MAGIC, version, len(text), len(frames))
    return header + hashlib.sha256(header + text + frames).digest() + text + frames


def test_bad_files(tiny: bytes) -> None:
    head, body = file.read(tiny)
    assert signed(tiny, head=head) != b""
    wrong = {
        b"": "no snapshot: it begins with nothing, not 5345562d4d482d53",
        b"#!/bin/sh\n": "no snapshot: it begins with 23212f62696e2f73, not 5345562d4d482d53",
        tiny[:20]: "0x14 bytes: the header alone has 0x38",
        tiny[:-1]: f"{len(tiny) - 1:#x} bytes: by its header it has {len(tiny):#x}",
        tiny + b"x": f"{len(tiny) + 1:#x} bytes: by its header it has {len(tiny):#x}",
        signed(tiny, version=2): "a snapshot of version 2, not 1",
        tiny[:-1] + bytes([tiny[-1] ^ 1]): "damaged: its SHA-256 is ",
        tiny[:60] + b"?" + tiny[61:]: "damaged: its SHA-256 is ",
        signed(tiny, head=b"{"): "what is behind its header is no JSON",
        signed(tiny, head=b"[" * 100_000): "what is behind its header is no JSON",
        signed(tiny, head=b"\xff"): "what is behind its header is no JSON",
        signed(tiny, head=[]): "what is behind its header is no object of JSON",
        signed(tiny, head={"state": {}}): "it says state, not made of, owner, state",
    }
    for data, message in wrong.items():
        with pytest.raises(SnapshotError) as caught:
            Saved.read(data)
        assert str(caught.value).startswith(message)
    assert len(body) > 0


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("made of",), [], "made of: no object of JSON"),
        (("made of", "part"), None, "part: nothing in the snapshot, milan here"),
        (("made of", "colour"), "red", "colour: red in the snapshot, nothing here"),
        (("state", "asid"), 9, "ASID 0x9 with its key, where the launch has"),
        (("state", "frames", "given"), 1, "0x1 frames given away, of 0xe000; the launch alone takes 0x"),
        (("state", "frames", "given"), 1 << 40, "0x10000000000 frames given away, of 0xe000; the launch"),
        (("state", "frames", "memories"), [], "memories of  bytes, not 0x8000000"),
        (("state", "frames", "memories", 0, "pages"), 1, "frames of 0x"),
        (("state", "drawn"), 1 << 30, "1073741824 numbers drawn, at most 0x1000000"),
        (("state", "vmsa"), "00", "registers of 0x1 bytes, not 0x1000"),
        (("state", "vmsa"), "ff" * 4096, ""),
        (("state", "timer"), None, "the timer of one side interrupts, and that of the other does not"),
        (("state", "regions"), None, "the helper of one side is handed over, and that of the other is not"),
        (("state", "regions"), "00", "a hand-over of 0x1 bytes, not 0x"),
        (("state", "board", "cmos", "chosen"), 128, "no state of this machine: CMOS: register 0x80 of 0x80"),
        (("state", "board", "extra"), 1, "state.board has accesses, apic, cmos, debug, extra"),
        (("state", "consent", "shared"), [[0, 1 << 63]], "no state of this machine: shared RAM of 0x0, 0x8"),
    ],
)
def test_what_is_refused(
    images: Mapping[str, Image], tiny: bytes, place: tuple[str | int, ...], value: object, message: str
) -> None:
    head = json.loads(json.dumps(file.read(tiny).head))
    inner = head
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(SnapshotError) as caught:
        boot(guest(images, TINY), Place([signed(tiny, head=head)])).run()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("owned", [("", ""), ("00" * 32, ""), ("00" * 31, "00" * 16)])
def test_an_owner_without_a_key_is_refused(tiny: bytes, owned: tuple[str, str]) -> None:
    head = file.read(tiny).head | {"owner": dict(zip(("key", "guest"), owned, strict=True))}
    with pytest.raises(SnapshotError, match="^owner: a key of "):
        Saved.read(signed(tiny, head=head)).secret(1)


def test_frames_that_do_not_fit(images: Mapping[str, Image], tiny: bytes) -> None:
    """A page that is there twice, one outside of RAM, a frame of another page, and caches that are coherent."""
    body = bytearray(file.read(tiny).body)
    first, second = (struct.unpack_from("<II", body, at) for at in (0, 8))
    wrong = {
        (8, (first[0], second[1])): "is there twice, or is none of 0x8000",
        (0, (RAM >> 12, first[1])): "is there twice, or is none of 0x8000",
        (8, (second[0], first[1])): "is another one's, or nobody's",
        (0, (first[0], 0xFFFF_FFFE)): "is another one's, or nobody's",
        (0, (first[0], first[1] | 1)): "a table with 0x1 pages in caches, not 0x0",
    }
    for (at, entry), message in wrong.items():
        bad = bytearray(body)
        struct.pack_into("<II", bad, at, *entry)
        with pytest.raises(SnapshotError) as caught:
            boot(guest(images, TINY), Place([signed(tiny, body=bytes(bad))])).run()
        assert str(caught.value).endswith(message)
