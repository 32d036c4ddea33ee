"""The field below X25519, where no input leads by design: values whose second carry or borrow is one in 2^250."""

from __future__ import annotations

import itertools
import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile, assemble_text
from mh_builder.paging import PAGE_BYTES

from .kernels import Emulated, Engine, Native, addresses, relocated
from .rfc7748 import P, encode

if TYPE_CHECKING:
    from collections.abc import Callable

A24 = 121665
GARBAGE = 2**64 - 1  # in rcx, in which carries go
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda left, right: left + right,
    "subtract": lambda left, right: left - right,
    "add_scaled": lambda left, right: left + A24 * right,
    "multiply": lambda left, right: left * right,
}

# Both ends: sums that carry and differences that borrow a second time.
ENDS = [*range(40), *range(2**256 - 40, 2**256)]
# Around every multiple of p and of 2^255, at both ends, and words of all ones or zeros, which hand carries on.
NEAR = [base + offset for base in (0, P, 2**255, 2 * P, 2**256) for offset in range(-40, 41)]
WORDS = [
    sum(word << 64 * place for place, word in enumerate(words))
    for words in itertools.product((0, 1, 2**63 - 1, 2**63, 2**64 - 1), repeat=4)
]
EDGES = sorted({value for value in (*ENDS, *NEAR, *WORDS) if 0 <= value < 2**256})


@cache
def field() -> ObjectFile:
    text = Path(__file__).with_name("field.s").read_text(encoding="ascii")
    return assemble_text(text, "field.s", include_dir=PAYLOAD)


def with_field(engine: Engine) -> Engine:
    """The engine with the field's operations behind the probe."""
    code = engine.symbols["probe"] + PAGE_BYTES
    places = {".text": code, ".rodata": code + PAGE_BYTES}
    for section, data in relocated(field(), places, {}).items():
        engine.write(places[section], data)
    engine.symbols |= addresses(field(), places)
    return engine


@pytest.fixture(scope="module")
def emulated_field() -> Engine:
    return with_field(Emulated())


@pytest.fixture(scope="module")
def native_field() -> Engine:
    if missing := Native.missing():
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    return with_field(Native())


@pytest.fixture(params=["emulated_field", "native_field"], ids=["unicorn", "native"])
def machine(request: pytest.FixtureRequest) -> Engine:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Engine)
    found.reset()
    return found


def compute(machine: Engine, operation: str, left: int, right: int) -> int:
    machine.reset()
    result, *operands = (machine.buffer(encode(value)) for value in (0, left, right))
    machine.call(f"field_{operation}", result, *operands, GARBAGE)
    return int.from_bytes(machine.read(result, 32), "little")


def agrees(machine: Engine, operation: str, left: int, right: int) -> bool:
    expected = OPERATIONS[operation](left, right)
    return compute(machine, operation, left, right) % P == expected % P


@pytest.mark.parametrize("operation", OPERATIONS)
def test_ends(machine: Engine, operation: str) -> None:
    for left, right in itertools.product(ENDS, repeat=2):
        assert agrees(machine, operation, left, right), (left, right)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_edges_with_edges(machine: Engine, operation: str) -> None:
    source = random.Random(operation)
    for _ in range(5000):
        left, right = source.choices(EDGES, k=2)
        assert agrees(machine, operation, left, right), (left, right)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_edges_with_any(machine: Engine, operation: str) -> None:
    source = random.Random(operation)
    for edge in EDGES:
        any_other = source.getrandbits(256)
        assert agrees(machine, operation, edge, any_other), (edge, any_other)
        assert agrees(machine, operation, any_other, edge), (any_other, edge)


def second_carry(source: random.Random, top: int) -> int:
    """A sum of 4 words and `top` whose 4 words carry again when 38 * `top` is added to them."""
    return (top + 1) * 2**256 - source.randint(1, 38 * top)


@pytest.mark.parametrize("top", [1, 2, 38, 1000, A24 - 1, A24])
def test_second_carry_of_a_scaled_sum(machine: Engine, top: int) -> None:
    source = random.Random(top)
    for _ in range(50):
        total = second_carry(source, top)
        right = source.randint((total - 2**256) // A24 + 1, min(total // A24, 2**256 - 1))
        left = total - A24 * right
        assert 0 <= left < 2**256
        assert 0 <= right < 2**256
        assert agrees(machine, "add_scaled", left, right), (left, right)


@pytest.mark.parametrize("top", [1, 2, 19, 37])
def test_second_carry_of_a_product(machine: Engine, top: int) -> None:
    """The total lo + 38 * hi is chosen. The product is equal to it modulo 2^256 - 38; few pairs have that very sum."""
    source = random.Random(top)
    found = 0
    while found < 20:
        total = second_carry(source, top)
        left = source.randrange(2**255, 2**256) | 1
        right = total * pow(left, -1, 2 * P) % (2 * P)
        high, low = divmod(left * right, 2**256)
        if low + 38 * high == total:
            found += 1
            assert agrees(machine, "multiply", left, right), (left, right)


def test_reduction_is_complete(machine: Engine) -> None:
    source = random.Random(25519)
    for value in (*EDGES, *(source.getrandbits(256) for _ in range(1000))):
        assert compute(machine, "reduce", value, 0) == value % P, value


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operands_may_be_the_result(machine: Engine, operation: str) -> None:
    source = random.Random(operation)
    left, right = source.getrandbits(256), source.getrandbits(256)
    for places in ((0, 0, 1), (1, 0, 1), (0, 0, 0)):
        machine.reset()
        buffers = [machine.buffer(encode(value)) for value in (left, right)]
        machine.call(f"field_{operation}", *(buffers[place] for place in places))
        values = [(left, right)[place] for place in places[1:]]
        found = int.from_bytes(machine.read(buffers[places[0]], 32), "little")
        assert found % P == OPERATIONS[operation](*values) % P
