"""What a host may ask for, good and bad, as a generator of random numbers has it."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from random import Random
from typing import Any

from emulator_tests.reference.correspondent import DATA, HOSTS, NO_DAMAGE, TAG, Damage
from emulator_tests.reference.terms import PAGE, PLAIN, RAM_LIMIT
from mh_abi import abi
from mh_emulator.host.ring import Request
from mh_emulator.host.session import Batch

LIST, VMSA, PRIVATE = abi.MH_BATCH_LIST, abi.MH_BATCH_VMSA, abi.MH_BATCH_PRIVATE
WORD = 64 * PAGE
"""Bytes of RAM that one word of a map is about."""

VMSAS = (0, PAGE, abi.MH_VMSA_BYTES - 2 * PAGE)

MOVES = (0, 0, 0, 0, LIST, LIST, VMSA, LIST | VMSA)
SHARES = (0, PRIVATE, PRIVATE, PRIVATE | LIST, LIST)


@cache
def _runs() -> tuple[int, ...]:
    """Where a run begins that meets something: another word of the maps, the helper, the end."""
    low = (0, WORD - 4 * PAGE, 2 * WORD - 2 * PAGE)
    return (*low, *low, PLAIN.protected.start - 6 * PAGE, PLAIN.protected.stop, RAM_LIMIT - 6 * PAGE)


@cache
def _outside() -> tuple[int, ...]:
    """Addresses that no page has that may be moved."""
    return (1, 0xFFF, RAM_LIMIT, RAM_LIMIT + 8, 1 << 47, 1 << 63, (1 << 64) - PAGE, PLAIN.protected.stop - PAGE)


def batch(random: Random, slots: int, flags: tuple[int, ...]) -> tuple[int, Batch]:
    """A batch that a lane of that many slots holds, and its first slot."""
    flag = random.choice(flags)
    count = random.randint(60, 70) if slots > 70 and random.random() < 0.1 else random.randint(1, 6)
    slot = random.choice([0, 0, 1, slots - count])
    if flag & LIST:
        return slot, Batch(listed=tuple(_address(random, flag) for _ in range(count)), flags=flag & ~LIST)
    chunk = random.choice([1, min(2, count), count])
    return slot, Batch(address=_address(random, flag), count=count, chunk=chunk, flags=flag)


def chunks(slot: int, of: Batch) -> list[tuple[int, int, int]]:
    """(slot, address, pages) of each chunk of a batch that begins at `slot`."""
    if of.listed:
        return [(slot + number, address, 1) for number, address in enumerate(of.listed)]
    return [
        (slot + done, (of.address + done * PAGE) % (1 << 64), min(of.chunk, of.count - done))
        for done in range(0, of.count, of.chunk)
    ]


def _address(random: Random, flag: int) -> int:
    if random.random() < 0.05:
        return random.choice(_outside())
    return random.choice(VMSAS if flag & VMSA else _runs()) + random.randint(0, 4) * PAGE


_FIELDS = {name: min(len(field.type), 8) for name, field in abi.mh_submission.fields.items() if name != "cookie"}
_VALUES = (0, 1, 2, 3, 4, 8, 11, 63, 64, 511, 512, 513, 0xFFFF, 1 << 31, 1 << 63)


def entry(random: Random, request: Request, cookie: int) -> bytes:
    """The 64 bytes of a submission, of which now and then a field is spoiled."""
    made: dict[str, Any] = asdict(request) | {"cookie": cookie}
    if random.random() < 0.05:
        name, value = random.choice(sorted(_FIELDS)), random.choice(_VALUES)
        value %= 1 << 8 * _FIELDS[name]
        made[name] = [0, 0, 0, value] if name == "reserved1" else value
    return bytes(abi.mh_submission(**made).dumps())


def misshapen(random: Random, request: Request, slots: int) -> Request:
    """Of a batch, now and then something that no lane of that many slots serves, or just does."""
    if random.random() > 0.1:
        return request
    if request.flags & LIST:
        return replace(request, **random.choice([{"address": PAGE}, {"chunk": 2}]))
    changes = [
        {"chunk": request.count + 1},
        {"chunk": 0},
        {"count": 0},
        {"slot": slots - request.count + 1},
        {"slot": slots},
    ]
    return replace(request, **random.choice(changes))


_PACKET = (*(name for name in abi.mh_packet.fields if name not in HOSTS), DATA, TAG, DATA, TAG)
_END = (*_PACKET, "urgent", "address", "address")
_HELLO = (*abi.mh_hello.fields, *["protection"] * 4)
_PACKET_PAIRS = (
    ("kind", "session"), ("reserved", "session"), ("session", "stream"), ("stream", "address"), ("address", "epoch"),
    ("epoch", "sequence"), ("sequence", "urgent"), ("urgent", "address"), ("address", TAG),
)  # fmt: skip
_HELLO_PAIRS = (
    ("low", "high"), ("low", "high", "reserved"), ("reserved", "addresses"), ("addresses", "guest"),
    ("guest", "flags"), ("flags", "protection"), ("protection", "share"),
)  # fmt: skip
"""Neighbours in the order of the checks."""
_DELTAS = (1, 1, -1, -1, 2, PAGE, -PAGE)


def packet_damage(random: Random) -> Damage:
    """Of one packet in three."""
    return _damage(random, _PACKET, _PACKET_PAIRS) if random.random() < 0.35 else NO_DAMAGE


def end_damage(random: Random) -> Damage:
    """Of one packet in three that end something."""
    return _damage(random, _END, _PACKET_PAIRS) if random.random() < 0.35 else NO_DAMAGE


def hello_damage(random: Random) -> Damage:
    """Of a hello; more protection than it takes is none."""
    return _damage(random, _HELLO, _HELLO_PAIRS)


def _damage(random: Random, fields: tuple[str, ...], pairs: tuple[tuple[str, ...], ...]) -> Damage:
    names = random.choice(pairs) if random.random() < 0.3 else (random.choice(fields),)
    delta = random.choice(_DELTAS)
    return Damage(dict.fromkeys(names, delta), random.random() < 0.5)
