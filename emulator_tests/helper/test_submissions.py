"""Submissions that a helper must refuse: fields, states, addresses; each has its own status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emulator_tests.helper.conftest import (
    PAGES,
    Pair,
    PairMaker,
    Status,
    contents_of,
    facing,
    launched,
    lonely,
    started,
)
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_emulator.host.ring import HelperRefused, Request
from mh_emulator.host.session import abort, begin, export_batch, greet, runs
from mh_emulator.host.side import Side

Op = abi.mh_op
Role = abi.mh_role
PAGE = abi.MH_PAGE_BYTES


# ---- submissions ----


@pytest.mark.parametrize("op", [0, 11, 12, 13, 0xFF, 0x101, 0xFFFF])
def test_unknown_op(pair: Pair, op: int) -> None:
    assert pair.source.ask(op) == Status.MH_BAD_OP


SNP_ONLY = {Op.MH_OP_ATTEST, Op.MH_OP_RECORD, Op.MH_OP_RUN, Op.MH_OP_CONTEXT}
"""Other helpers know no such operation."""
BATCH: dict[str, Any] = {"count": 1, "chunk": 1}
FULL = abi.MH_RING_SLOTS

UNUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "export-role": (Op.MH_OP_EXPORT, BATCH | {"role": 1}),
    "export-reserved": (Op.MH_OP_EXPORT, BATCH | {"reserved1": [0, 0, 0, 1 << 56]}),
    "import-reserved": (Op.MH_OP_IMPORT, BATCH | {"reserved1": [1, 0, 0, 0]}),
    "hello-address": (Op.MH_OP_HELLO, {"address": 0x1000}),
    "hello-role": (Op.MH_OP_HELLO, {"role": 2}),
    "hello-slot-beyond": (Op.MH_OP_HELLO, {"slot": FULL}),
    "hello-count": (Op.MH_OP_HELLO, {"count": 1}),
    "start-address": (Op.MH_OP_START, {"role": 1, "count": 1, "address": 1 << 63}),
    "start-no-ring": (Op.MH_OP_START, {"role": 1}),
    "start-more-rings-than-there-are": (Op.MH_OP_START, {"role": 1, "count": 2}),
    "start-chunk": (Op.MH_OP_START, {"role": 1, "count": 1, "chunk": 1}),
    "start-flags": (Op.MH_OP_START, {"role": 1, "count": 1, "flags": 1}),
    "start-slot-beyond": (Op.MH_OP_START, {"role": 1, "count": 1, "slot": FULL}),
    "start-reserved": (Op.MH_OP_START, {"role": 1, "count": 1, "reserved1": [0, 1 << 63, 0, 0]}),
    "start-without-role": (Op.MH_OP_START, {"role": 0, "count": 1}),
    "start-third-role": (Op.MH_OP_START, {"role": 3, "count": 1}),
    "finish-address": (Op.MH_OP_FINISH, {"address": 0x1000}),
    "finish-chunk": (Op.MH_OP_FINISH, {"chunk": 1}),
    "finish-slot-beyond": (Op.MH_OP_FINISH, {"slot": FULL}),
    "epoch-flags": (Op.MH_OP_EPOCH, {"flags": 1}),
    "epoch-reserved": (Op.MH_OP_EPOCH, {"reserved1": [0, 1, 0, 0]}),
    "epoch-slot-beyond": (Op.MH_OP_EPOCH, {"slot": 0xFFFF}),
    "abort-reserved": (Op.MH_OP_ABORT, {"reserved1": [0, 0, 1, 0]}),
    "abort-count": (Op.MH_OP_ABORT, {"count": 1}),
    "abort-slot": (Op.MH_OP_ABORT, {"slot": 1}),
    "resume-role": (Op.MH_OP_RESUME, {"role": 1}),
    "resume-slot": (Op.MH_OP_RESUME, {"slot": 1}),
    "resume-count": (Op.MH_OP_RESUME, {"count": 1}),
    "resume-address": (Op.MH_OP_RESUME, {"address": 0x1000}),
    "no-pages": (Op.MH_OP_EXPORT, {}),
    "no-chunk": (Op.MH_OP_EXPORT, {"count": 1}),
    "no-count": (Op.MH_OP_EXPORT, {"chunk": 1}),
    "chunk-above-count": (Op.MH_OP_EXPORT, {"count": 2, "chunk": 3}),
    "more-than-the-ring-holds": (Op.MH_OP_EXPORT, {"count": FULL + 1, "chunk": 1}),
    "beyond-the-last-slot": (Op.MH_OP_EXPORT, {"count": 2, "chunk": 1, "slot": FULL - 1}),
    "slot-and-count-wrap": (Op.MH_OP_IMPORT, {"count": 0xFFFF, "chunk": 1, "slot": 1}),
    "unknown-flag": (Op.MH_OP_EXPORT, BATCH | {"flags": 4}),
    "unknown-flag-beside": (Op.MH_OP_EXPORT, BATCH | {"flags": 9}),
    "share-vmsas": (Op.MH_OP_SHARE, BATCH | {"flags": abi.MH_BATCH_VMSA}),
    "share-role": (Op.MH_OP_SHARE, BATCH | {"role": 1}),
    "list-in-chunks": (Op.MH_OP_EXPORT, {"count": 2, "chunk": 2, "flags": 1}),
    "list-with-address": (Op.MH_OP_EXPORT, BATCH | {"flags": 1, "address": 0x1000}),
}


@pytest.mark.parametrize("case", UNUSED)
def test_unused_fields_must_be_zero(pair: Pair, case: str) -> None:
    op, fields = UNUSED[case]
    assert raw_submission(pair.source, abi.mh_submission(op=int(op), **fields).dumps()) == Status.MH_BAD_ENTRY


def test_every_operation_refuses_fields() -> None:
    """JOIN is asked for on other rings, see test_vcpus.py; the last three under SNP, see attest/ and vmpl/."""
    assert {op for op, _ in UNUSED.values()} == set(Op) - {Op.MH_OP_JOIN} - SNP_ONLY


@pytest.mark.parametrize("op", [op.value for op in Op if op not in SNP_ONLY])
def test_reserved_field_must_be_zero(pair: Pair, op: int) -> None:
    batch = op in (Op.MH_OP_EXPORT, Op.MH_OP_IMPORT, Op.MH_OP_SHARE)
    start = op == Op.MH_OP_START
    entry = abi.mh_submission(op=op, role=start, count=batch or start, chunk=batch, reserved0=1 << 31)
    expected = Status.MH_WRONG_RING if op == Op.MH_OP_JOIN else Status.MH_BAD_ENTRY
    assert raw_submission(pair.source, entry.dumps()) == expected


def raw_submission(side: Side, entry: bytes) -> abi.mh_status:
    """Submit these 64 bytes; return the status."""
    ring = side.ring
    index = ring.header().head % abi.MH_RING_ENTRIES
    ring.submit(entry)
    ring.run()
    size = len(abi.mh_completion)
    return Status(abi.mh_completion(ring.read(abi.MH_RING_COMPLETIONS + index * size, size)).status)


# ---- states ----


def in_idle(images: dict[str, Image], _make: PairMaker) -> Side:
    return lonely(images)


def in_greeted(images: dict[str, Image], _make: PairMaker) -> Side:
    side = lonely(images)
    greet(side.ring)
    return side


def as_source(_images: dict[str, Image], make: PairMaker) -> Side:
    return make("regions").source


def as_target(_images: dict[str, Image], make: PairMaker) -> Side:
    return make("regions").target


def after_finish(_images: dict[str, Image], make: PairMaker) -> Side:
    side = make("regions").source
    assert side.ask(Op.MH_OP_FINISH) == Status.MH_DONE
    return side


def after_abort(_images: dict[str, Image], make: PairMaker) -> Side:
    side = make("regions").source
    abort(side.ring)
    return side


Stage = Callable[[dict[str, Image], PairMaker], Side]

NEEDING = [Op.MH_OP_EXPORT, Op.MH_OP_IMPORT, Op.MH_OP_EPOCH, Op.MH_OP_FINISH, Op.MH_OP_RESUME]
"""What is done in a session."""

WRONG_STATES: list[tuple[Stage, list[abi.mh_op]]] = [
    (in_idle, [Op.MH_OP_START, *NEEDING]),
    (in_greeted, NEEDING),
    (as_source, [Op.MH_OP_HELLO, Op.MH_OP_START, Op.MH_OP_IMPORT]),
    (as_target, [Op.MH_OP_HELLO, Op.MH_OP_START, Op.MH_OP_EXPORT]),
    (after_finish, [Op.MH_OP_START, *NEEDING]),
    (after_abort, [Op.MH_OP_START, *NEEDING]),
]


@pytest.mark.parametrize(("stage", "ops"), WRONG_STATES, ids=[stage.__name__ for stage, _ in WRONG_STATES])
def test_wrong_state(stage: Stage, ops: list[abi.mh_op], images: dict[str, Image], make_pair: PairMaker) -> None:
    side = stage(images, make_pair)
    for op in ops:
        fields = BATCH if op in (Op.MH_OP_EXPORT, Op.MH_OP_IMPORT) else {}
        fields = {"role": 1, "count": 1} if op == Op.MH_OP_START else fields
        assert side.ring.serve([Request(op, **fields)])[0].status == Status.MH_WRONG_STATE


def test_own_hello_is_no_peer(images: dict[str, Image]) -> None:
    side = lonely(images)
    hello = greet(side.ring)
    with pytest.raises(HelperRefused, match="^helper refuses start: MH_BAD_NONCE$"):
        begin(side.ring, Role.MH_ROLE_SOURCE, hello)


# ---- addresses ----

OUTSIDE = [
    1 << 36,
    (1 << 36) + PAGE,
    1 << 47,
    1 << 51 | 0x1000,
    1 << 42,
    (1 << 64) - PAGE,
    1 << 63,
    0xFFFF_8000_0000_0000,
    0xFFFF_8040_0000_0000,
]


@pytest.mark.parametrize("address", OUTSIDE, ids=hex)
def test_out_of_range(scheme: str, make_pair: PairMaker, address: int) -> None:
    pair = make_pair(scheme)
    assert pair.source.ask(Op.MH_OP_EXPORT, address) == Status.MH_OUT_OF_RANGE
    assert pair.target.ask(Op.MH_OP_IMPORT, address) == Status.MH_OUT_OF_RANGE


@pytest.mark.parametrize("address", [1, 0x800, 0xFFF, 0x4000001, (1 << 64) - 1], ids=hex)
def test_not_aligned(pair: Pair, address: int) -> None:
    assert pair.source.ask(Op.MH_OP_EXPORT, address) == Status.MH_NOT_ALIGNED
    assert pair.target.ask(Op.MH_OP_IMPORT, address) == Status.MH_NOT_ALIGNED


@pytest.mark.parametrize("resident", ["alias-gpa", "alias-window", "alias-window-high", "regions"])
def test_every_page_of_the_helper_is_protected(resident: str, make_pair: PairMaker) -> None:
    pair = make_pair(resident)
    home = pair.source.machine.helper.home
    assert home is not None
    pages = range(home, home + pair.source.machine.helper.memory_bytes, PAGE)
    for batch in runs(pages, chunk=1):
        _, results = export_batch(pair.source.ring, batch)
        assert {result.status for result in results} == {Status.MH_PROTECTED}
    for page in [*pages[::50], pages[-1]]:
        assert pair.target.ask(Op.MH_OP_IMPORT, page) == Status.MH_PROTECTED


def test_pages_beside_the_helper_are_not_protected(pair: Pair) -> None:
    helper = pair.source.machine.helper
    assert helper.home is not None
    assert pair.source.ask(Op.MH_OP_EXPORT, helper.home - PAGE) == Status.MH_DONE
    assert pair.source.ask(Op.MH_OP_EXPORT, helper.home + helper.memory_bytes) == Status.MH_DONE


@pytest.mark.parametrize("number", range(abi.MH_PROTECTED_MAX))
def test_every_protected_range_counts(images: dict[str, Image], number: int) -> None:
    """An image with a range more, as for a launch secret outside of the helper, in each place of the table."""
    data = bytearray(images["isolated"].data)
    start, end = 0x2000, 0x4000
    entry = len(abi.mh_descriptor) + abi.mh_params.fields["protect"].offset + number * len(abi.mh_range)
    data[entry : entry + len(abi.mh_range)] = abi.mh_range(start=start, end=end).dumps()
    side = started(launched(parse_image(bytes(data)), PARTS["milan"], 1, contents_of(PAGES)))
    facing(side, Role.MH_ROLE_SOURCE)
    statuses = [side.ask(Op.MH_OP_EXPORT, page) for page in range(start - PAGE, end + PAGE, PAGE)]
    assert statuses == [Status.MH_DONE, Status.MH_PROTECTED, Status.MH_PROTECTED, Status.MH_DONE]


# ---- randomness ----

RDRAND_RAX = bytes.fromhex("480fc7f0")


def without_entropy(images: dict[str, Image], old: bytes, new: bytes) -> Side:
    """A helper in which other instructions were put in the place of `old`, in the image before its launch."""
    data = images["regions"].data
    assert data.count(old) == 1
    assert len(old) == len(new)
    helper = parse_image(data.replace(old, new))
    return started(launched(helper, PARTS["milan"], 1, contents_of(PAGES)))


def test_no_entropy(images: dict[str, Image]) -> None:
    side = without_entropy(images, RDRAND_RAX, bytes.fromhex("f8909090"))  # clc
    assert side.ask(Op.MH_OP_HELLO) == Status.MH_NO_ENTROPY
    assert side.ring.serve([Request(Op.MH_OP_START, role=1, count=1)])[0].status == Status.MH_WRONG_STATE


@pytest.mark.parametrize(("works_at", "status"), [(1, Status.MH_NO_ENTROPY), (2, Status.MH_DONE), (9, Status.MH_DONE)])
def test_entropy_that_comes_late(images: dict[str, Image], works_at: int, status: abi.mh_status) -> None:
    """ECX counts the tries down from ten: carry is set once fewer than `works_at` are left."""
    data = images["regions"].data
    at = data.index(RDRAND_RAX)
    old = data[at : at + 10]
    # jnc, lea rdx, [rax - 1]
    assert (old[4], old[6:]) == (0x73, bytes.fromhex("488d50ff"))
    # rdtsc; cmp ecx, works_at; jnc
    new = bytes.fromhex("0f3183f9") + bytes([works_at, 0x73, old[5] - 1]) + b"\x90" * 3
    side = without_entropy(images, old, new)
    assert side.ask(Op.MH_OP_HELLO) == status
