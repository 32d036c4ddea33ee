"""Steps of a host as scripts are written by hand: what it asks for, and what its peer sends."""

from __future__ import annotations

from functools import partial

from emulator_tests.fuzz.script import Step, Value, step
from mh_abi import abi

Op = abi.mh_op
Kind = abi.mh_kind

R0, R1, U0 = "ring 0", "ring 1", "ring 0, urgent"
LIST, VMSA, PRIVATE = int(abi.MH_BATCH_LIST), int(abi.MH_BATCH_VMSA), int(abi.MH_BATCH_PRIVATE)


def ask(op: int, lane: str = R0, **values: Value) -> Step:
    return step("submit", lane=lane, op=int(op), **values)


def one(op: int, address: str, lane: str = R0, **values: Value) -> Step:
    return ask(op, lane, address=address, **({"count": 1, "chunk": 1} | values))


export, bring = partial(one, Op.MH_OP_EXPORT), partial(one, Op.MH_OP_IMPORT)


def listed(op: int, lane: str, *pages: str) -> tuple[Step, Step]:
    first, second, third = pages
    addresses = step("list", lane=lane, slot=0, first=first, second=second, third=third)
    return addresses, ask(op, lane, count=3, chunk=1, flags=LIST)


def sealed(address: str = "page 0", lane: str = R0, kind: int = 1, **values: Value) -> Step:
    return step("packet", lane=lane, kind=kind, address=address, **({"pages": 1} | values))


def ended(op: int, lane: str = R0, wrong: str = "valid") -> tuple[Step, Step]:
    kind = Kind.MH_KIND_EPOCH if op == Op.MH_OP_EPOCH else Kind.MH_KIND_END
    return sealed(lane=lane, kind=kind.value, wrong=wrong), ask(op, lane)


def begun(role: int, rings: int = 2) -> tuple[Step, ...]:
    joins = (ask(Op.MH_OP_JOIN, R1),) if rings > 1 else ()
    start = ask(Op.MH_OP_START, role=role, slot=1, count=rings)
    return (ask(Op.MH_OP_HELLO), step("hello", slot=1), start, *joins)
