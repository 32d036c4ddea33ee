"""Scripts of whole migrations and of what a host may do beside them: every operation is in a corpus from the start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

from emulator_tests.fuzz.asked import (
    PRIVATE,
    R0,
    R1,
    U0,
    VMSA,
    Op,
    ask,
    begun,
    bring,
    ended,
    export,
    listed,
    one,
    sealed,
)
from emulator_tests.fuzz.file_seeds import FILE_SEEDS
from emulator_tests.fuzz.script import PACKETS, Script, Step, step
from emulator_tests.fuzz.snp_seeds import ES_SEEDS, SNP_SEEDS

_SOURCE = (
    *(export("page 0"), export("page 1", U0), export("page 2", R1), export("page 3", count=3, chunk=2)),
    *(ask(Op.MH_OP_EPOCH), ask(Op.MH_OP_EPOCH, R1)),
    *listed(Op.MH_OP_EXPORT, R1, "page 0", "page 1", "page 5"),
    *(ask(Op.MH_OP_RESUME), export("page 0"), export("page 4"), ask(Op.MH_OP_FINISH), ask(Op.MH_OP_FINISH, R1)),
)
_TARGET = (
    *(sealed("page 0"), bring("page 0"), sealed("page 1", U0), bring("page 1", U0)),
    *(sealed("page 2", R1, kind=2), bring("page 2", R1)),
    *(sealed("page 3", pages=3), bring("page 3", count=3, chunk=3)),
    *ended(Op.MH_OP_EPOCH), *ended(Op.MH_OP_EPOCH, R1),
    *(sealed(page, R1, slot=slot) for slot, page in enumerate(("page 0", "page 1", "page 5"))),
    *listed(Op.MH_OP_IMPORT, R1, "page 0", "page 1", "page 5"),
    ask(Op.MH_OP_RESUME),
    *ended(Op.MH_OP_FINISH), *ended(Op.MH_OP_FINISH, R1),
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


_MIRROR = (
    Script("started", (*begun(1), *_SOURCE)),
    Script("started", (*begun(2), *_TARGET)),
    Script("source", _SOURCE),
    Script("target", _TARGET),
    Script("started", (
        *(*begun(1, 1), export("page 0"), ask(Op.MH_OP_FINISH), *begun(2, 1), *ended(Op.MH_OP_FINISH)),
    )),
    Script("strict", (
        *(export("page 0"), export("page 1"), export("page 3", U0), export("page 2", R1)),
        *(ask(Op.MH_OP_EPOCH), ask(Op.MH_OP_EPOCH, R1), export("page 0")),
        *(step("guest", page=2, contents="one byte"), ask(Op.MH_OP_FINISH), ask(Op.MH_OP_FINISH, R1)),
        *(export("page 2", R1), ask(Op.MH_OP_FINISH, R1)),
    )),
    Script("source", (
        *(one(Op.MH_OP_SHARE, "page 0", count=3, chunk=3), export("page 1")),
        *(one(Op.MH_OP_SHARE, "page 1", flags=PRIVATE), export("page 1")),
        *listed(Op.MH_OP_SHARE, R0, "page 4", "page 1 + 1", "ring"),
        *(export("page 3", count=3, chunk=1), export("page 0", flags=VMSA), export("helper"), export("limit")),
    )),
    Script("target", (
        *(sealed("page 0", kind=5), bring("page 0", flags=VMSA), sealed("page 0", wrong="bit of the tag")),
        *(bring("page 0"), bring("page 0"), ask(Op.MH_OP_ABORT, R1), bring("page 1", R1)),
    )),
    Script("source", (
        *(export("page 0", count=64, chunk=8, then="wait"), step("run", ring=0, instructions=200, more=40)),
        *(ask(Op.MH_OP_ABORT, R1), step("run", ring=0), step("start", ring=1, how="again"), *begun(1)),
    )),
    Script("source", (
        *(export("page 0", then="wait"), step("run", ring=0, instructions=100, more=3)),
        *(step("start", ring=0), *begun(1), export("page 0")),
    )),
    Script("target", (
        *(ask(0, then="wait"), step("run", ring=0, instructions=60), step("event", ring=0, kind=0, vector=32)),
        *(step("run", ring=0), step("run", ring=0), step("start", ring=0), *begun(2, 1)),
    )),
    Script("started", (
        *(step("random", generator="stuck"), ask(Op.MH_OP_HELLO), step("random"), ask(Op.MH_OP_HELLO)),
        *(step("hello", slot=1, wrong="bit", by=20), ask(Op.MH_OP_START, role=1, slot=1, count=1)),
        *(step("hello", slot=1, wrong="our own"), ask(Op.MH_OP_START, role=1, slot=1, count=1)),
        *(step("hello", slot=1, wrong="share"), ask(Op.MH_OP_START, role=2, slot=1, count=1)),
    )),
    Script("source", (
        *(step("tail", lane=R1, ahead=65), step("run", ring=1), export("page 0", R1), step("start", ring=1)),
        *(step("write", ring=0, area="submissions", **{"byte 0": 3, "byte 6": 1}), step("tail", lane=R0, ahead=1)),
        *(step("run", ring=0), step("event", ring=0, kind=2), step("run", ring=0)),
    )),
    *(Script("target", _each(some, lambda wrong: (sealed(wrong=wrong), bring("page 0")))) for some in _REFUSED),
    *(Script("target", _each(some, lambda wrong: ended(Op.MH_OP_EPOCH, wrong=wrong))) for some in _REFUSED),
    *(Script("target", _each(some, lambda wrong: ended(Op.MH_OP_FINISH, wrong=wrong))) for some in _REFUSED),
    Script("started", (ask(Op.MH_OP_HELLO), *_each(_NO_HELLOS, lambda wrong: (
        step("hello", slot=1, wrong=wrong), ask(Op.MH_OP_START, role=1, slot=1, count=1)
    )))),
    *(
        Script("source", (
            *(export("page 0", R1, then="wait"), step("run", ring=1, instructions=200, more=more)),
            *(ask(Op.MH_OP_ABORT), *begun(1, 1), step("run", ring=1), *begun(1, 1)),
        ))
        for more in (0, 9)
    ),
    *(
        Script("source", (
            *(ask(Op.MH_OP_ABORT, R1, then="wait"), step("run", ring=1, instructions=instructions)),
            *(*begun(1, 1), step("start", ring=1), *begun(1, 1)),
        ))
        for instructions in (40, 132, 137, 138, 145)
    ),
)  # fmt: skip

SEEDS = (*_MIRROR, *ES_SEEDS, *SNP_SEEDS, *FILE_SEEDS)
