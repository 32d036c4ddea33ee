"""What becomes of a script that a fuzzer changes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from emulator_tests.fuzz.script import (
    ADDRESSES,
    FAMILIES,
    KINDS_OF,
    LANES,
    OPERANDS,
    STAGES,
    Script,
    Step,
    Value,
    loads,
    step,
)
from mh_abi import abi


@cache
def constants() -> tuple[int, ...]:
    """Every number of the ABI, and its neighbours."""
    values = {int(value) for value in abi.constants().values() if isinstance(value, int)}
    return tuple(sorted({(value + by) % (1 << 64) for value in values for by in (-1, 0, 1)}))


def mutated(source: random.Random, script: Script, others: Sequence[Script]) -> Script:
    """The script with a change, or with several, the more the rarer; `others` are where steps may come from.

    It stays in its family of stages.
    """
    family, stage = FAMILIES[script.stage], script.stage
    script = source.choices(_CHANGES, _WEIGHTS)[0](source, script, others)
    while source.random() < _AGAIN:
        script = source.choices(_CHANGES, _WEIGHTS)[0](source, script, others)
    changed = loads(script.dumps())
    return changed if FAMILIES[changed.stage] == family else Script(stage, changed.steps)


def _operand(source: random.Random, script: Script, _others: Sequence[Script]) -> Script:
    """Another value for one operand of a step."""
    if not script.steps:
        return script
    number = source.randrange(len(script.steps))
    old = script.steps[number]
    operands = bytearray(old.operands)
    place = source.randrange(len(operands))
    values = list(OPERANDS[old.kind].values())[place]
    operands[place] = source.choice((0, operands[place] + 1, operands[place] - 1, source.randrange(256))) % len(values)
    return _with(script, number, Step(old.kind, bytes(operands)))


def _number(source: random.Random, script: Script, others: Sequence[Script]) -> Script:
    """A constant of the ABI, or a neighbour of one, for what a step writes."""
    writes = [number for number, one in enumerate(script.steps) if one.kind == "write"]
    if not writes:
        return _insert(source, script, others)
    number = source.choice(writes)
    old = script.steps[number]
    return _with(script, number, Step("write", old.operands[:4] + source.choice(constants()).to_bytes(8, "little")))


def _with(script: Script, number: int, new: Step) -> Script:
    return Script(script.stage, (*script.steps[:number], new, *script.steps[number + 1 :]))


def _insert(source: random.Random, script: Script, others: Sequence[Script]) -> Script:
    """One step more: of another script, or a new one."""
    number = source.randint(0, len(script.steps))
    other = source.choice(others).steps
    new = source.choice(other) if other and source.random() < 0.5 else _new(source, script.stage)
    return Script(script.stage, (*script.steps[:number], new, *script.steps[number:]))


def _new(source: random.Random, stage: str) -> Step:
    """Any step of the stage; of a submission half of the time one whose fields are those that its operation takes."""
    kind = source.choice(KINDS_OF[FAMILIES[stage]])
    if kind == "submit" and source.random() < 0.5:
        return _submission(source)
    return Step(kind, bytes(source.choice((0, source.randrange(len(values)))) for values in OPERANDS[kind].values()))


def _submission(source: random.Random) -> Step:
    op = source.choice(tuple(abi.mh_op))
    fields: dict[str, Value] = {"lane": source.choice(LANES), "op": int(op)}
    if op in _OF_PAGES:
        fields |= {"count": source.choice((1, 2, 3)), "chunk": 1, "address": source.choice(ADDRESSES)}
    elif op == abi.mh_op.MH_OP_START:
        fields |= {"role": source.choice((1, 2)), "slot": 1, "count": source.choice((1, 2))}
    elif op == abi.mh_op.MH_OP_ATTEST:
        fields |= {"role": source.choice((1, 2))}
    elif op == abi.mh_op.MH_OP_RUN:
        fields |= {"count": 2}
    return step("submit", **fields)


def _drop(source: random.Random, script: Script, _others: Sequence[Script]) -> Script:
    """Some steps less."""
    first = source.randint(0, len(script.steps))
    return Script(script.stage, script.steps[:first] + script.steps[first + source.randint(1, 3) :])


def _repeat(source: random.Random, script: Script, _others: Sequence[Script]) -> Script:
    """Some steps twice."""
    first = source.randint(0, len(script.steps))
    behind = first + source.randint(1, 3)
    return Script(script.stage, script.steps[:behind] + script.steps[first:])


def _swap(source: random.Random, script: Script, _others: Sequence[Script]) -> Script:
    """Two neighbours in the other order."""
    if len(script.steps) < 2:
        return script
    first = source.randrange(len(script.steps) - 1)
    one, two = script.steps[first : first + 2]
    return Script(script.stage, (*script.steps[:first], two, one, *script.steps[first + 2 :]))


def _splice(source: random.Random, script: Script, others: Sequence[Script]) -> Script:
    """The beginning of this one, and the end of another."""
    other = source.choice(others).steps
    return Script(
        script.stage,
        script.steps[: source.randint(0, len(script.steps))] + other[source.randint(0, len(other)) :],
    )


def _flip(source: random.Random, script: Script, _others: Sequence[Script]) -> Script:
    """Another bit, wherever it is: what follows may mean something else."""
    data = bytearray(script.dumps())
    data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return loads(bytes(data))


def _move(source: random.Random, script: Script, _others: Sequence[Script]) -> Script:
    """The same on another stage of its family."""
    family = FAMILIES[script.stage]
    return Script(source.choice([stage for stage in STAGES if FAMILIES[stage] == family]), script.steps)


_CHANGES = (_operand, _number, _insert, _drop, _repeat, _swap, _splice, _flip, _move)
_AGAIN = 0.4
_OF_PAGES = (abi.mh_op.MH_OP_EXPORT, abi.mh_op.MH_OP_IMPORT, abi.mh_op.MH_OP_SHARE)
_WEIGHTS = (8, 2, 6, 3, 2, 2, 2, 1, 1)
