"""X25519 against RFC 7748's vectors, two implementations, and the values that arithmetic gets wrong."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from .kernels import MASK, STACK_BYTES
from .rfc7748 import ORDER, TWIST_PRIME, P, clamp, encode, ladder
from .rfc7748 import x25519 as reference

if TYPE_CHECKING:
    from .kernels import Engine, Outcome, Traced

NINE = encode(9)

# All u of order 1, 2, 4 and 8, on the curve and on its twist; two are not canonical (https://cr.yp.to/ecdh.html#validate).
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = (0, 1, *ORDER_8, P - 1, P, P + 1)
TOP_BIT = 2**255  # masked, RFC 7748, 5

WORD = 2**64 - 1
SPECIAL_U = sorted(
    {
        *range(2, 20),
        *range(P - 20, P - 1),
        *range(P + 2, 2**255),  # not canonical
        # From the same list; no low order once the top bit is masked.
        *(2 * P - 1, 2 * P, 2 * P + 1, *(P + point for point in ORDER_8)),
        *(value + TOP_BIT for value in (9, P - 2, P + 9, TOP_BIT - 1)),
        *(WORD << 64 * place for place in range(4)),
        *(2**256 - 1 - (WORD << 64 * place) for place in range(4)),
        *(1 << bit for bit in (51, 63, 64, 102, 127, 128, 153, 191, 192, 204, 230, 254)),
        int("55" * 32, 16),
        int("aa" * 32, 16),
    }
)
SPECIAL_SCALARS = [
    *(encode(value) for value in (0, 7, 8, 2**254, 2**255 - 8, 2**255 - 1, 2**255, 2**256 - 1)),
    *(encode(value) for value in (int("55" * 32, 16), int("aa" * 32, 16), WORD, WORD << 64, WORD << 128, WORD << 192)),
    *(encode(multiple * ORDER // 8 * 8) for multiple in range(4, 8)),
]


def scalars_near(order: int) -> list[bytes]:
    """The clamped scalars that are 1 or -1 modulo an order."""
    near = (multiple * order + offset for multiple in range(1, 9) for offset in (-1, 1))
    return [encode(value) for value in near if clamp(encode(value)) == value]


@cache
def points_of(order: int, candidates: tuple[int, ...]) -> list[int]:
    """Those candidates for u whose points have this prime order: as many times plus one leave them where they are."""
    return [u for u in candidates if ladder(order + 1, u) == u]


@pytest.fixture(params=["emulated_engine", "native_engine"], ids=["unicorn", "native"])
def machine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    found.reset()
    return found


def call(
    machine: Engine, scalar: bytes, u: bytes | None, skews: tuple[int, int, int] = (0, 0, 0)
) -> tuple[bytes, Outcome]:
    """What x25519 writes and leaves, or x25519_base where `u` is None; the verdict must fit the result."""
    machine.reset()
    result = machine.buffer(b"\xee" * 32, skews[0])
    inputs = [value for value in (scalar, u) if value is not None]
    places = [machine.buffer(value, skew) for value, skew in zip(inputs, skews[1:], strict=False)]
    outcome = machine.call("x25519_base" if u is None else "x25519", result, *places)
    found = machine.read(result, 32)
    assert outcome.general["rax"] == (found == bytes(32))
    assert [machine.read(place, 32) for place in places] == inputs
    return found, outcome


def exchange(machine: Engine, scalar: bytes, u: bytes) -> bytes:
    return call(machine, scalar, u)[0]


def test_wycheproof(machine: Engine) -> None:
    """All of Project Wycheproof's vectors: edge cases of keys, products and secrets, the twist, low orders."""
    rows = Path(__file__).with_name("wycheproof_x25519.txt").read_text(encoding="ascii").splitlines()
    vectors = [row.split() for row in rows if not row.startswith("#")]
    assert len(vectors) == 518
    wrong = [
        number
        for number, private, public, shared in vectors
        if exchange(machine, bytes.fromhex(private), bytes.fromhex(public)).hex() != shared
    ]
    assert wrong == []


@cache
def by_reference(scalar: bytes, u: bytes) -> bytes:
    return reference(scalar, u)


def by_cryptography(scalar: bytes, u: bytes) -> bytes:
    """Raises ValueError where the result is zero."""
    return X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(u))


@pytest.mark.parametrize(
    ("scalar", "u", "result"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_published_vectors(machine: Engine, scalar: str, u: str, result: str) -> None:
    """RFC 7748, 5.2."""
    assert exchange(machine, bytes.fromhex(scalar), bytes.fromhex(u)).hex() == result


def test_published_iterations(machine: Engine) -> None:
    """RFC 7748, 5.2."""
    scalar = u = NINE
    results = []
    for _ in range(1000):
        scalar, u = exchange(machine, scalar, u), scalar
        results.append(scalar.hex())
    assert results[0] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert results[999] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_published_exchange(machine: Engine) -> None:
    """RFC 7748, 6.1."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    publics = [call(machine, scalar, None)[0] for scalar in (alice, bob)]
    assert [public.hex() for public in publics] == [
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ]
    assert exchange(machine, alice, publics[1]).hex() == shared
    assert exchange(machine, bob, publics[0]).hex() == shared


@pytest.mark.parametrize(("name", "count"), [("emulated_engine", 300), ("native_engine", 4000)])
def test_agrees_with_cryptography(request: pytest.FixtureRequest, name: str, count: int) -> None:
    """Half of all u are on the curve and half on its twist; half have the top bit."""
    machine: Engine = request.getfixturevalue(name)
    source = random.Random(7748)
    for _ in range(count):
        scalar, u = source.randbytes(32), source.randbytes(32)
        assert exchange(machine, scalar, u) == by_cryptography(scalar, u), (scalar.hex(), u.hex())


def test_base_point(machine: Engine) -> None:
    source = random.Random(9)
    for scalar in (*SPECIAL_SCALARS, *(source.randbytes(32) for _ in range(100))):
        found, _ = call(machine, scalar, None)
        assert found == X25519PrivateKey.from_private_bytes(scalar).public_key().public_bytes_raw()
        assert found == exchange(machine, scalar, NINE)


def test_special_values(machine: Engine) -> None:
    for u in SPECIAL_U:
        for scalar in SPECIAL_SCALARS:
            found = exchange(machine, scalar, encode(u))
            assert found == by_reference(scalar, encode(u)), (scalar.hex(), u)
            assert found == by_cryptography(scalar, encode(u)), (scalar.hex(), u)


@pytest.mark.parametrize("top", [0, TOP_BIT], ids=["masked", "top bit"])
@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_is_reported(machine: Engine, point: int, top: int) -> None:
    """`call` compares the verdict with the result."""
    for scalar in SPECIAL_SCALARS:
        assert exchange(machine, scalar, encode(point + top)) == bytes(32)
    with pytest.raises(ValueError, match="shared key"):
        by_cryptography(SPECIAL_SCALARS[0], encode(point + top))


def test_scalar_is_clamped(machine: Engine) -> None:
    """RFC 7748, 5: 3 bits at the bottom and 2 at the top are not the caller's."""
    source = random.Random(5)
    u, inner = source.randbytes(32), source.getrandbits(256) & (2**254 - 8)
    results = {exchange(machine, encode(inner | low | high << 254), u) for low in range(8) for high in range(4)}
    assert results == {by_cryptography(encode(inner), u)}


@pytest.mark.parametrize("order", [ORDER, TWIST_PRIME], ids=["curve", "twist"])
def test_one_and_minus_one(machine: Engine, order: int) -> None:
    """A scalar that is 1 or -1 modulo the order of a point leaves u as it is."""
    points = points_of(order, tuple(range(2, 60)))
    assert scalars_near(order)
    for scalar in scalars_near(order):
        assert all(exchange(machine, scalar, encode(point)) == encode(point) for point in points)


@pytest.mark.parametrize("order", [ORDER, TWIST_PRIME], ids=["curve", "twist"])
def test_results_at_the_ends(machine: Engine, order: int) -> None:
    """Results near 0 and p: before the reduction such a number comes in all its two or three forms below 2^256."""
    source = random.Random(order)
    words = (value << 64 * place for value in range(1, 20) for place in (1, 2, 3))  # all but one of them zero
    points = points_of(order, (*range(1, 60), *range(P - 60, P), *words))
    assert len(points) > 8
    for point in points:
        for _ in range(10):
            scalar = source.randbytes(32)
            u = ladder(pow(clamp(scalar), -1, order), point)
            assert exchange(machine, scalar, encode(u)) == encode(point), (scalar.hex(), point)


def test_at_every_alignment(machine: Engine) -> None:
    source = random.Random(64)
    scalar, u = source.randbytes(32), source.randbytes(32)
    results = {call(machine, scalar, u, (skew, skew * 3 % 64, skew * 5 % 64))[0] for skew in range(64)}
    assert results == {by_cryptography(scalar, u)}


SECRETS = [
    (random.Random(1).randbytes(32), random.Random(2).randbytes(32)),
    (random.Random(3).randbytes(32), random.Random(4).randbytes(32)),
    (bytes(32), NINE),
    (b"\xff" * 32, b"\xff" * 32),
    (random.Random(5).randbytes(32), bytes(32)),
]


def test_path_does_not_depend_on_secrets(traced: Traced) -> None:
    """The same instructions touch the same addresses whatever the scalar, u and the result."""
    exchange(traced, *SECRETS[0])
    first = traced.trace[:]
    assert len(first) > 255 * 1000
    for scalar, u in SECRETS[1:]:
        exchange(traced, scalar, u)
        same = traced.trace == first  # outside of the assertion, which would print half a million accesses
        assert same, (scalar.hex(), u.hex())


def test_nothing_else_is_touched(traced: Traced) -> None:
    """Beside its stack and the result x25519 writes nothing; it reads its inputs and what it has written."""
    traced.reset()
    result, scalar, u = (traced.buffer(bytes(32)) for _ in range(3))
    traced.call("x25519", result, scalar, u)
    stack = range(traced.data, traced.data + STACK_BYTES)
    allowed = {
        "write": (stack, range(result, result + 32)),
        "read": (stack, range(scalar, scalar + 32), range(u, u + 32)),
        "run": (range(traced.CODE, traced.CODE + len(traced.image)),),
    }
    for kind, address, size in set(traced.trace):
        assert any(address in area and address + size - 1 in area for area in allowed[kind]), (kind, hex(address))


@pytest.mark.parametrize("base", [False, True], ids=["x25519", "x25519_base"])
def test_no_secret_is_left_behind(machine: Engine, base: bool) -> None:
    """Whatever the secrets were, registers and stack look the same at return; vector registers are not used."""
    remains = set()
    # Among the latter are products that p is taken away from.
    for scalar, u in (*SECRETS, *((scalar, NINE) for scalar in scalars_near(ORDER))):
        _, outcome = call(machine, scalar, None if base else u)
        assert outcome.vector == MASK + b"\xff" * (len(outcome.vector) - len(MASK))
        remains.add((outcome.stack, *(value for name, value in outcome.general.items() if name != "rax")))
    assert len(remains) == 1


@pytest.mark.parametrize("paint", [b"\0", b"\xff"], ids=["zeros", "ones"])
def test_stack_may_hold_anything(machine: Engine, monkeypatch: pytest.MonkeyPatch, paint: bytes) -> None:
    monkeypatch.setattr(machine, "PAINT", paint)
    scalar, u = SECRETS[0]
    assert exchange(machine, scalar, u) == by_cryptography(scalar, u)


def test_stack_is_small(machine: Engine) -> None:
    """A vCPU has 8 KiB for x25519 and its callers."""
    _, outcome = call(machine, *SECRETS[0])
    assert 0 < len(outcome.stack.lstrip(machine.PAINT)) < 512
