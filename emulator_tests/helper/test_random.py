"""Randomness: hellos differ whatever RDRAND gives; where it gives nothing new there is none, and no import."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emulator_tests.helper.conftest import Op, Pair, Status, lonely
from emulator_tests.helper.oracle import scalar_of
from mh_abi import abi
from mh_builder.image.model import Image
from mh_emulator.cpu.rdrand import FAULTS, Fault
from mh_emulator.host.ring import Request
from mh_emulator.host.session import abort, greet
from mh_emulator.host.side import Side

DEAD = ["stuck", "zero", "fails"]


@pytest.fixture
def side(images: dict[str, Image]) -> Side:
    return lonely(images)


def greetings(side: Side, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield greet(side.ring)
        abort(side.ring)


def hello_status(side: Side) -> abi.mh_status:
    return side.ring.serve([Request(Op.MH_OP_HELLO)])[0].status


@pytest.mark.parametrize("fault", DEAD)
def test_a_dead_generator_makes_no_hello(side: Side, fault: str) -> None:
    side.machine.platform.generator.fault = FAULTS[fault]
    assert [hello_status(side) for _ in range(3)] == [Status.MH_NO_ENTROPY] * 3
    side.machine.platform.generator.fault = None
    assert hello_status(side) == Status.MH_DONE


def test_a_word_that_comes_twice_is_asked_for_again(side: Side) -> None:
    words = (0x1111_2222_3333_4444, 0x1111_2222_3333_4444, 0x5555_6666_7777_8888, 0x9999_AAAA_BBBB_CCCC)
    side.machine.platform.generator.fault = Fault(words, carry=True)
    hellos = [abi.mh_hello(greeting) for greeting in greetings(side, 4)]
    assert len({bytes(hello.nonce) for hello in hellos}) == 4


@pytest.mark.parametrize("good", range(4))
def test_a_generator_that_dies_in_the_middle(side: Side, good: int) -> None:
    """After some words, of the four that a hello takes."""
    words = tuple(range(2, 2 + good)) + (0,) * 1000
    side.machine.platform.generator.fault = Fault(words, carry=True)
    assert hello_status(side) == Status.MH_NO_ENTROPY
    side.machine.platform.generator.fault = None
    assert hello_status(side) == Status.MH_DONE


@pytest.mark.parametrize("good", range(4))
def test_a_generator_that_has_nothing_for_a_while(side: Side, good: int) -> None:
    """It is asked ten times for each of the four words; that it has some later does not help."""
    words = tuple(range(2, 2 + good)) + (0,) * 10 + tuple(range(6, 1000))
    side.machine.platform.generator.fault = Fault(words, carry=True)
    assert hello_status(side) == Status.MH_NO_ENTROPY


@pytest.mark.parametrize("word", [1, (1 << 64) - 2])
def test_words_beside_those_of_a_broken_generator_are_good(side: Side, word: int) -> None:
    side.machine.platform.generator.fault = Fault((word, 2, 3, 4, *(0,) * 1000), carry=True)
    assert hello_status(side) == Status.MH_DONE


def test_no_word_counts_twice(side: Side) -> None:
    side.machine.platform.generator.fault = Fault((2, 2, 3, 4, *(0,) * 1000), carry=True)
    assert hello_status(side) == Status.MH_NO_ENTROPY


@pytest.mark.parametrize("tsc", [None, 12345], ids=["time", "the host's time"])
def test_a_repeating_generator_makes_no_nonce_twice(side: Side, images: dict[str, Image], tsc: int | None) -> None:
    """The same words again and again, and the same time: there is a number that never comes again."""
    side.machine.platform.generator.fault = FAULTS["repeats"]
    side.machine.mirror.vm.tsc = tsc
    seen = set()
    scalars = set()
    for _ in range(12):
        hello = abi.mh_hello(greet(side.ring))
        seen |= {bytes(hello.nonce), bytes(hello.share)}
        scalars.add(scalar_of(images["regions"], side.machine))
        abort(side.ring)
    assert len(seen) == 24
    assert len(scalars) == 12


def test_a_start_sets_nothing_back(side: Side) -> None:
    """A helper that is started anew with a repeating generator makes other hellos than before."""
    side.machine.platform.generator.fault = FAULTS["repeats"]
    side.machine.mirror.vm.tsc = 1
    before = set(greetings(side, 3))
    side.ring = side.machine.start_helper(anew=True)
    side.machine.mirror.vm.tsc = 1
    assert before.isdisjoint(greetings(side, 3))


@pytest.mark.parametrize("fault", DEAD)
def test_no_import_without_a_mask(pair: Pair, fault: str) -> None:
    """The packet is good, and comes again when there is randomness."""
    sealed = pair.source.export(pair.pages[0])
    pair.target.machine.platform.generator.fault = FAULTS[fault]
    assert [pair.target.put(pair.pages[0], sealed) for _ in range(2)] == [Status.MH_NO_ENTROPY] * 2
    pair.target.machine.platform.generator.fault = None
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_DONE
    assert pair.target_page(pair.pages[0]) == pair.contents[: abi.MH_PAGE_BYTES]


@pytest.mark.parametrize("fault", DEAD)
def test_an_export_needs_no_randomness(pair: Pair, fault: str) -> None:
    pair.source.machine.platform.generator.fault = FAULTS[fault]
    assert pair.target.put(pair.pages[0], pair.source.export(pair.pages[0])) == Status.MH_DONE
