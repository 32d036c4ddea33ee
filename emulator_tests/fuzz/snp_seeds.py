"""Scripts of an SNP guest that is attested, runs, leaves and comes, and of what its host may do meanwhile."""

from __future__ import annotations

from functools import partial

from emulator_tests.fuzz.asked import PRIVATE, R1, VMSA, Kind, Op, ask, begun, bring, ended, export, one, sealed
from emulator_tests.fuzz.script import MESSAGES, OWNERS, Script, Step, step

_SLOT = 1
_CONTEXT = Kind.MH_KIND_CONTEXT.value
_RUN, _STOP = ask(Op.MH_OP_RUN, count=2), export("registers", flags=VMSA)
_FINISHED = (ask(Op.MH_OP_FINISH), ask(Op.MH_OP_FINISH, R1))
_WORK = step("vcpu", instructions=100)
_LEAVES = (step("told", slot=_SLOT), ask(Op.MH_OP_CONTEXT, slot=_SLOT))
_ARRIVES = (sealed("registers", kind=Kind.MH_KIND_VMSA.value), bring("registers", flags=VMSA))
_TAKEN_IN = (sealed(kind=_CONTEXT, slot=_SLOT), ask(Op.MH_OP_CONTEXT, slot=_SLOT))
_CAME = (*ended(Op.MH_OP_FINISH), *ended(Op.MH_OP_FINISH, R1))
_ABORTED = (ask(Op.MH_OP_ABORT), ask(Op.MH_OP_ABORT, R1))
_changed = partial(step, "pages")


def _attested(role: int = 1, **owner: int | str) -> tuple[Step, ...]:
    shown = (step("owner", slot=_SLOT, what="challenge"), ask(Op.MH_OP_ATTEST, role=role, slot=_SLOT))
    return (*shown, step("owner", slot=_SLOT, **owner), ask(Op.MH_OP_RECORD, slot=_SLOT))


def _came(page: str, lane: str = "ring 0") -> tuple[Step, Step]:
    return sealed(page, lane), bring(page, lane)


SNP_SEEDS = (
    Script("vmpl source", (
        *(export("page 0"), export("page 3", R1, count=3, chunk=2), ask(Op.MH_OP_EPOCH), ask(Op.MH_OP_EPOCH, R1)),
        *(_WORK, export("page 0"), ask(Op.MH_OP_FINISH), _STOP, *_LEAVES, *_FINISHED, _RUN, *begun(1)),
    )),
    Script("vmpl source", (_STOP, *_ABORTED, _RUN, _WORK, *begun(1), _STOP, *_FINISHED, _RUN)),
    *(
        Script("vmpl source", (_STOP, step("kernel", message=message, by=40), *_LEAVES, *_FINISHED, *begun(2)))
        for message in ("bit",)
    ),
    Script("vmpl source", (_STOP, step("told", slot=_SLOT, context="0"), ask(Op.MH_OP_CONTEXT, slot=_SLOT))),
    Script("vmpl source", (
        *(_STOP, ask(Op.MH_OP_FINISH, then="wait"), step("run", ring=0, instructions=200, more=5), _RUN, _RUN),
        *(step("event", ring=0, kind=2), step("run", ring=0)),
    )),
    Script("vmpl source", (_changed(what="replaced", page="page 0"), export("page 0"), export("page 1", R1))),
    Script("vmpl source", (
        *(_changed(what="shared", page="page 1"), export("page 1"), _changed(page="page 1"), step("run", ring=0)),
        *(_changed(what="exchanged", page="page 2"), export("page 2", R1), _changed(what="written", page="page 5")),
    )),
    Script("vmpl source", (
        *(_changed(what="taken", page="registers"), _STOP, _changed(what="as a VMSA", page="page 0"), _WORK),
        *(_changed(what="shared", page="ring"), export("page 0"), _changed(page="ring"), step("run", ring=0)),
    )),
    Script("vmpl source", (
        *(*_ABORTED, one(Op.MH_OP_SHARE, "page 0", count=3, chunk=3), one(Op.MH_OP_SHARE, "page 0", flags=PRIVATE)),
        *(one(Op.MH_OP_SHARE, "helper", flags=PRIVATE), one(Op.MH_OP_SHARE, "registers", flags=PRIVATE), *begun(2)),
        *(*_came("page 0"), *_ARRIVES, _RUN),
    )),
    Script("vmpl target", (
        *(*_came("page 0"), *_came("page 2", R1), *_ARRIVES, *_TAKEN_IN, _RUN, *_CAME, _RUN, _WORK, *begun(2)),
        *(*begun(1), _STOP, *_FINISHED, _RUN),
    )),
    Script("vmpl target", (
        *(*_came("page 0"), _changed(what="replaced", page="page 0")),
        *(*ended(Op.MH_OP_EPOCH, R1), *ended(Op.MH_OP_EPOCH), *_came("page 0"), *_came("page 1", R1)),
    )),
    Script("vmpl target", (
        *(sealed("page 0", wrong="bit of the tag"), bring("page 0"), *_ABORTED, *begun(2), *_came("page 0")),
        *(*_ABORTED, *begun(2), *_came("page 1"), *ended(Op.MH_OP_FINISH), _RUN, *ended(Op.MH_OP_FINISH, R1), _RUN),
    )),
    *(
        Script("vmpl target", (*_ARRIVES, step("kernel", message=message, by=9), *_TAKEN_IN, *_CAME, _RUN, _WORK))
        for message in MESSAGES[1:3]
    ),
    Script("vmpl target", (
        *(_changed(what="shared", page="page 0"), *_came("page 0"), _changed(page="page 0"), step("run", ring=0)),
        *(_changed(page="untouched RAM"), *_came("untouched RAM"), _changed(what="taken", page="page 0"), _RUN),
    )),
    Script("vmpl launched", (
        *(*_attested(), *_attested(), one(Op.MH_OP_SHARE, "page 0", count=3, chunk=1, flags=PRIVATE), _RUN, _WORK),
        *(*begun(1), export("page 0"), _STOP, *_LEAVES, *_FINISHED),
    )),
    *(Script("vmpl launched", (*_attested(what=what), ask(Op.MH_OP_HELLO))) for what in OWNERS[3:4]),
    Script("vmpl launched", (step("kernel", message="kept back"), *_attested(), ask(Op.MH_OP_HELLO))),
    Script("vmpl launched", (step("kernel", exits="ignored"), *_attested(), _RUN, _WORK)),
    Script("vmpl launched", (
        *(step("random", generator="zero"), *_attested(), step("random"), *_attested(), ask(Op.MH_OP_HELLO), _RUN),
    )),
)  # fmt: skip
"""Of SNP guests."""

ES_SEEDS = (
    Script("es source", (
        *(export("page 0"), export("page 3", R1, count=3, chunk=2), step("vmsa", ring=0, what="bit", by=9)),
        *(export("page 1"), step("vmsa", ring=0, what="as before"), export("page 1"), *_FINISHED),
    )),
    Script("es source", (
        *(export("limit - 1 page"), export("page 0", R1, then="wait"), step("run", ring=1, instructions=90, more=2)),
        *(step("vmsa", ring=1, what="other ring's"), step("run", ring=1), step("event", ring=1, vector=32)),
    )),
    Script("es target", (
        *(*_came("page 0"), *_came("page 2", R1), *_CAME, *begun(2), sealed("page 1", wrong="bit of the data")),
        *(bring("page 1"), step("vmsa", ring=1, what="zeros"), ask(Op.MH_OP_ABORT, R1)),
    )),
)  # fmt: skip
"""Of SEV-ES guests."""
