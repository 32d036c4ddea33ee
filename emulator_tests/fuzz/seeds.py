"""Scripts of whole migrations and of what a host may do beside them: every operation is in a corpus from the start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain

from emulator_tests.fuzz.script import PACKETS, Script, Step, Value, step
from mh_abi import abi

Op = abi.mh_op
Kind = abi.mh_kind

R0, R1, U0, U1 = "ring 0", "ring 1", "ring 0, urgent", "ring 1, urgent"
_LIST, _VMSA, _PRIVATE = int(abi.MH_BATCH_LIST), int(abi.MH_BATCH_VMSA), int(abi.MH_BATCH_PRIVATE)


def _ask(op: int, lane: str = R0, **values: Value) -> Step:
    return step("submit", lane=lane, op=int(op), **values)


def _one(op: int, address: str, lane: str = R0, **values: Value) -> Step:
    return _ask(op, lane, address=address, **({"count": 1, "chunk": 1} | values))


_export, _import = partial(_one, Op.MH_OP_EXPORT), partial(_one, Op.MH_OP_IMPORT)


def _listed(op: int, lane: str, *pages: str) -> tuple[Step, Step]:
    first, second, third = pages
    addresses = step("list", lane=lane, slot=0, first=first, second=second, third=third)
    return addresses, _ask(op, lane, count=3, chunk=1, flags=_LIST)


def _sealed(address: str = "page 0", lane: str = R0, kind: int = 1, **values: Value) -> Step:
    return step("packet", lane=lane, kind=kind, address=address, **({"pages": 1} | values))


def _ended(op: int, lane: str = R0, wrong: str = "valid") -> tuple[Step, Step]:
    kind = Kind.MH_KIND_EPOCH if op == Op.MH_OP_EPOCH else Kind.MH_KIND_END
    return _sealed(lane=lane, kind=kind.value, wrong=wrong), _ask(op, lane)


def _begun(role: int, rings: int = 2) -> tuple[Step, ...]:
    joins = (_ask(Op.MH_OP_JOIN, R1),) if rings > 1 else ()
    start = _ask(Op.MH_OP_START, role=role, slot=1, count=rings)
    return (_ask(Op.MH_OP_HELLO), step("hello", slot=1), start, *joins)


_SOURCE = (
    *(_export("page 0"), _export("page 1", U0), _export("page 2", R1), _export("page 3", count=3, chunk=2)),
    *(_ask(Op.MH_OP_EPOCH), _ask(Op.MH_OP_EPOCH, R1)),
    *_listed(Op.MH_OP_EXPORT, R1, "page 0", "page 1", "page 5"),
    *(_ask(Op.MH_OP_RESUME), _export("page 0"), _export("page 4"), _ask(Op.MH_OP_FINISH), _ask(Op.MH_OP_FINISH, R1)),
)
_TARGET = (
    *(_sealed("page 0"), _import("page 0"), _sealed("page 1", U0), _import("page 1", U0)),
    *(_sealed("page 2", R1, kind=2), _import("page 2", R1)),
    *(_sealed("page 3", pages=3), _import("page 3", count=3, chunk=3)),
    *_ended(Op.MH_OP_EPOCH), *_ended(Op.MH_OP_EPOCH, R1),
    *(_sealed(page, R1, slot=slot) for slot, page in enumerate(("page 0", "page 1", "page 5"))),
    *_listed(Op.MH_OP_IMPORT, R1, "page 0", "page 1", "page 5"),
    _ask(Op.MH_OP_RESUME),
    *_ended(Op.MH_OP_FINISH), *_ended(Op.MH_OP_FINISH, R1),
)  # fmt: skip

_FIELDS = tuple(dict.fromkeys(wrong for wrong in PACKETS if " " not in wrong and wrong != "valid"))
_REFUSED = (
    (*_FIELDS[:6], "bit of the tag"),
    (*_FIELDS[6:], "bit of the header", "other key"),
    ("seen before", "valid", "bit of the data"),
)
"""The last one of each costs the session."""
_NO_HELLOS = (
    "magic",
    "high",
    "addresses",
    "guest",
    "protection",
    "flags",
    "bit",
    "our own",
    "share",
    "reserved",
    "low",
)


def _each(names: Iterable[str], steps: Callable[[str], Iterable[Step]]) -> tuple[Step, ...]:
    return tuple(chain.from_iterable(map(steps, names)))


SEEDS = (
    Script("started", (*_begun(1), *_SOURCE)),
    Script("started", (*_begun(2), *_TARGET)),
    Script("source", _SOURCE),
    Script("target", _TARGET),
    Script("started", (
        *(*_begun(1, 1), _export("page 0"), _ask(Op.MH_OP_FINISH), *_begun(2, 1), *_ended(Op.MH_OP_FINISH)),
    )),
    Script("strict", (
        *(_export("page 0"), _export("page 1"), _export("page 3", U0), _export("page 2", R1)),
        *(_ask(Op.MH_OP_EPOCH), _ask(Op.MH_OP_EPOCH, R1), _export("page 0")),
        *(step("guest", page=2, contents="one byte"), _ask(Op.MH_OP_FINISH), _ask(Op.MH_OP_FINISH, R1)),
        *(_export("page 2", R1), _ask(Op.MH_OP_FINISH, R1)),
    )),
    Script("source", (
        *(_one(Op.MH_OP_SHARE, "page 0", count=3, chunk=3), _export("page 1")),
        *(_one(Op.MH_OP_SHARE, "page 1", flags=_PRIVATE), _export("page 1")),
        *_listed(Op.MH_OP_SHARE, R0, "page 4", "page 1 + 1", "ring"),
        *(_export("page 3", count=3, chunk=1), _export("page 0", flags=_VMSA), _export("helper"), _export("limit")),
    )),
    Script("target", (
        *(_sealed("page 0", kind=5), _import("page 0", flags=_VMSA), _sealed("page 0", wrong="bit of the tag")),
        *(_import("page 0"), _import("page 0"), _ask(Op.MH_OP_ABORT, R1), _import("page 1", R1)),
    )),
    Script("source", (
        *(_export("page 0", count=64, chunk=8, then="wait"), step("run", ring=0, instructions=200, more=40)),
        *(_ask(Op.MH_OP_ABORT, R1), step("run", ring=0), step("start", ring=1, how="again"), *_begun(1)),
    )),
    Script("source", (
        *(_export("page 0", then="wait"), step("run", ring=0, instructions=100, more=3)),
        *(step("start", ring=0), *_begun(1), _export("page 0")),
    )),
    Script("target", (
        *(_ask(0, then="wait"), step("run", ring=0, instructions=60), step("event", ring=0, kind=0, vector=32)),
        *(step("run", ring=0), step("run", ring=0), step("start", ring=0), *_begun(2, 1)),
    )),
    Script("started", (
        *(step("random", generator="stuck"), _ask(Op.MH_OP_HELLO), step("random"), _ask(Op.MH_OP_HELLO)),
        *(step("hello", slot=1, wrong="bit", by=20), _ask(Op.MH_OP_START, role=1, slot=1, count=1)),
        *(step("hello", slot=1, wrong="our own"), _ask(Op.MH_OP_START, role=1, slot=1, count=1)),
        *(step("hello", slot=1, wrong="share"), _ask(Op.MH_OP_START, role=2, slot=1, count=1)),
    )),
    Script("source", (
        *(step("tail", lane=R1, ahead=65), step("run", ring=1), _export("page 0", R1), step("start", ring=1)),
        *(step("write", ring=0, area="submissions", **{"byte 0": 3, "byte 6": 1}), step("tail", lane=R0, ahead=1)),
        *(step("run", ring=0), step("event", ring=0, kind=2), step("run", ring=0)),
    )),
    *(Script("target", _each(some, lambda wrong: (_sealed(wrong=wrong), _import("page 0")))) for some in _REFUSED),
    *(Script("target", _each(some, lambda wrong: _ended(Op.MH_OP_EPOCH, wrong=wrong))) for some in _REFUSED),
    *(Script("target", _each(some, lambda wrong: _ended(Op.MH_OP_FINISH, wrong=wrong))) for some in _REFUSED),
    Script("started", (_ask(Op.MH_OP_HELLO), *_each(_NO_HELLOS, lambda wrong: (
        step("hello", slot=1, wrong=wrong), _ask(Op.MH_OP_START, role=1, slot=1, count=1)
    )))),
    *(
        Script("source", (
            *(_export("page 0", R1, then="wait"), step("run", ring=1, instructions=200, more=more)),
            *(_ask(Op.MH_OP_ABORT), *_begun(1, 1), step("run", ring=1), *_begun(1, 1)),
        ))
        for more in (0, 9)
    ),
    *(
        Script("source", (
            *(_ask(Op.MH_OP_ABORT, R1, then="wait"), step("run", ring=1, instructions=instructions)),
            *(*_begun(1, 1), step("start", ring=1), *_begun(1, 1)),
        ))
        for instructions in (40, 132, 137, 138, 145)
    ),
)  # fmt: skip
