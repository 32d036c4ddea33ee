"""For every submission of 64 bytes: dispatch hands over what abi.h allows, and refuses all else, for its reason."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from emulator_tests.coverage.blobs import helper_image
from emulator_tests.theorems.linked import Code, Part, offsets
from emulator_tests.theorems.symbolic import RETURN, STACK, Machine, Node, Path, paths, require
from emulator_tests.theorems.theorem import Theorem
from mh_abi import abi
from mh_builder.helper import build_helper
from mh_builder.schemes.space import Options

VCPU, SUBMISSIONS, COMPLETIONS = 0x1000_0000, 0x2000_0000, 0x3000_0000
NUMBER = 5
"""Of the submission; where it lies in the ring, nothing else depends on it."""
Op, Status = abi.mh_op, abi.mh_status
FIELDS = {"op": 2, "role": 2, "slot": 2, "count": 2, "cookie": 8, "address": 8, "chunk": 2, "flags": 2, "reserved0": 4}
SHARED = {"reserved1 a": 16, "reserved1 b": 16}


class Rule(NamedTuple):
    """What abi.h says of one operation."""

    handler: tuple[str, str]
    """Source and label."""
    fields: frozenset[str] = frozenset()
    rings: str = "all"
    urgent: bool = False


_SLOT = frozenset({"slot"})
_PAGES = frozenset({"slot", "count", "address", "chunk", "flags"})
RULES = {
    Op.MH_OP_HELLO: Rule(("hello", "hello"), _SLOT, "first"),
    Op.MH_OP_START: Rule(("session", "start"), frozenset({"role", "slot", "count"}), "first"),
    Op.MH_OP_EXPORT: Rule(("batch", "move_batch"), _PAGES, urgent=True),
    Op.MH_OP_IMPORT: Rule(("batch", "move_batch"), _PAGES, urgent=True),
    Op.MH_OP_EPOCH: Rule(("totals", "end_epoch"), _SLOT),
    Op.MH_OP_FINISH: Rule(("totals", "finish"), _SLOT),
    Op.MH_OP_ABORT: Rule(("ending", "abort")),
    Op.MH_OP_JOIN: Rule(("session", "join"), rings="others"),
    Op.MH_OP_SHARE: Rule(("batch", "move_batch"), _PAGES),
    Op.MH_OP_RESUME: Rule(("ending", "resume")),
    Op.MH_OP_ATTEST: Rule(("attest", "attest"), frozenset({"role", "slot"}), "first"),
    Op.MH_OP_RECORD: Rule(("attest", "record"), _SLOT, "first"),
    Op.MH_OP_RUN: Rule(("ownership", "run_guest"), frozenset({"slot", "count"}), "first"),
    Op.MH_OP_CONTEXT: Rule(("context", "context"), _SLOT, "first"),
}
_SNP_ONLY = frozenset({Op.MH_OP_ATTEST, Op.MH_OP_RECORD, Op.MH_OP_RUN, Op.MH_OP_CONTEXT})


def served(code: Code) -> list[abi.mh_op]:
    """The operations that the image knows."""
    return [op for op in Op if defined(code) or op not in _SNP_ONLY]


def defined(code: Code) -> tuple[str, ...]:
    """What the image was built with."""
    return ("MH_START_SNP",) if abi.mh_descriptor(code.image.data).flags & abi.MH_FLAG_SNP else ()


def lane_at(machine: Machine, urgent: bool) -> int:
    """Of the vCPU's two."""
    return VCPU + offsets(*defined(machine.code))["vcpu.urgent" if urgent else "vcpu.bulk"]


def submission(op: abi.mh_op | None, urgent: bool, machine: Machine) -> None:
    """Anything in the shared ring, of that operation, or of one that there is not; on any ring."""
    at, lane = offsets(), lane_at(machine, urgent)
    machine.put("r12", VCPU)
    machine.put("r13", lane)
    machine.put("rbp", NUMBER)
    machine.any_at(VCPU + at["vcpu.index"], 4, "ring")
    names = {"entries": "ENTRIES", "slots": "SLOTS"}
    for field, name in names.items():
        number = getattr(abi, f"MH_URGENT_{name}" if urgent else f"MH_RING_{name}")
        machine.write(lane + at[f"lane.{field}"], number.to_bytes(4, "little"))
    machine.write(lane + at["lane.stream"], (abi.MH_STREAM_URGENT if urgent else 0).to_bytes(4, "little"))
    machine.write(lane + at["lane.submissions"], SUBMISSIONS.to_bytes(8, "little"))
    machine.write(lane + at["lane.completions"], COMPLETIONS.to_bytes(8, "little"))
    place = SUBMISSIONS + NUMBER * len(abi.mh_submission)
    for name, size in (FIELDS | SHARED).items():
        machine.any_at(place, size, name)
        place += size
    assert place == SUBMISSIONS + (NUMBER + 1) * len(abi.mh_submission)
    if op is None:
        known = [
            machine.terms.equal(machine.variables["op"], machine.number(one.value, 16)) for one in served(machine.code)
        ]
        machine.assume(machine.terms.lnot(machine.terms.lor(known)))
    else:
        machine.write(SUBMISSIONS + NUMBER * len(abi.mh_submission), op.value.to_bytes(2, "little"))
    machine.write(STACK, machine.code.label("dispatch", "dispatch").to_bytes(8, "little"))
    machine.write(STACK + 8, RETURN.to_bytes(8, "little"))


def wide(machine: Machine, name: str) -> Node:
    """A field of at most 16 bits, as 32 bits: sums do not wrap."""
    return machine.terms.zx(16, machine.variables[name])


def is_ring(machine: Machine, rule: Rule, urgent: bool) -> Node:
    """Whether this ring, or its urgent lane, serves the operation."""
    terms, ring = machine.terms, machine.variables["ring"]
    is_first = terms.equal(ring, machine.number(0, 32))
    yes = terms.equal(ring, ring)
    if urgent:
        return yes if rule.urgent else terms.lnot(yes)
    return {"all": yes, "first": is_first, "others": terms.lnot(is_first)}[rule.rings]


def is_shape(machine: Machine, op: abi.mh_op, slots: int) -> Node:
    """Whether each field is within its bounds, and zero where the operation does not use it."""
    terms, number, fields = machine.terms, machine.number, RULES[op].fields
    unused = [name for name in (FIELDS | SHARED) if name not in fields and name not in {"op", "cookie"}]
    needs = [terms.equal(machine.variables[name], number(0, 8 * (FIELDS | SHARED)[name])) for name in unused]
    if "role" in fields:
        roles = [terms.equal(machine.variables["role"], number(role.value, 16)) for role in abi.mh_role]
        needs.append(terms.lor(roles))
    if "slot" in fields:
        needs.append(terms.bvult(wide(machine, "slot"), number(slots, 32)))
    if "chunk" in fields:
        needs += is_batch(machine, op, slots)
    return terms.land(needs)


def is_batch(machine: Machine, op: abi.mh_op, slots: int) -> list[Node]:
    """What abi.h has under `mh_submission` about pages."""
    terms, number = machine.terms, machine.number
    slot, count, chunk, flags = (wide(machine, name) for name in ("slot", "count", "chunk", "flags"))
    allowed = abi.MH_BATCH_LIST | (abi.MH_BATCH_PRIVATE if op is Op.MH_OP_SHARE else abi.MH_BATCH_VMSA)
    is_list = terms.distinct(terms.bvand(flags, number(abi.MH_BATCH_LIST, 32)), number(0, 32))
    is_single = terms.equal(chunk, number(1, 32))
    is_bare = terms.equal(machine.variables["address"], number(0))
    return [
        terms.bvule(terms.bvadd(slot, count), number(slots, 32)),
        terms.bvuge(chunk, number(1, 32)),
        terms.bvule(chunk, count),
        terms.equal(terms.bvand(flags, number(~allowed, 32)), number(0, 32)),
        terms.lor([terms.lnot(is_list), terms.land([is_single, is_bare])]),
    ]


def check(path: Path, op: abi.mh_op, urgent: bool) -> abi.mh_status | None:
    """The theorem on one path; the status of a refusal."""
    machine, terms, rule = path.machine, path.machine.terms, RULES[op]
    slots = abi.MH_URGENT_SLOTS if urgent else abi.MH_RING_SLOTS
    ring, shape = is_ring(machine, rule, urgent), is_shape(machine, op, slots)
    if path.end == RETURN:
        status = machine.register("eax")
        is_wrong_ring = terms.equal(status, machine.number(Status.MH_WRONG_RING.value, 32))
        is_bad = terms.equal(status, machine.number(Status.MH_BAD_ENTRY.value, 32))
        path.prove(terms.lor([is_wrong_ring, is_bad]), "another status")
        path.prove(terms.equal(is_wrong_ring, terms.lnot(ring)), "the wrong reason")
        path.prove(terms.lnot(terms.land([ring, shape])), "refused, though it is right")
        return Status(status.evaluate())
    path.ends_at(machine.code.label(*rule.handler))
    path.prove(terms.land([ring, shape]), "handed over, though it is wrong")
    for name in ("role", "slot", "count", *(("chunk", "flags") if "chunk" in rule.fields else ())):
        check_field(path, name, urgent)
    if "address" in rule.fields:
        check_start(path, urgent)
    return None


def check_field(path: Path, name: str, urgent: bool) -> None:
    """What a handler finds in the lane is what was said."""
    machine = path.machine
    found = machine.memory(lane_at(machine, urgent) + offsets()[f"lane.{name}"], 2)
    path.prove(machine.terms.equal(found, machine.variables[name]), f"the lane has another {name}")


def check_start(path: Path, urgent: bool) -> None:
    """The address of a run; of those that will be refused, one of each kind. A list has none."""
    machine, terms, number = path.machine, path.machine.terms, path.machine.number
    lane = lane_at(machine, urgent)
    found, address, flags = (
        machine.memory(lane + offsets()["lane.start"], 8),
        machine.variables["address"],
        wide(machine, "flags"),
    )
    ram = machine.code.params.ram_limit
    is_vmsa = terms.distinct(terms.bvand(flags, number(abi.MH_BATCH_VMSA, 32)), number(0, 32))
    limit = terms.ite(is_vmsa, number(abi.MH_VMSA_BYTES), number(ram))

    is_aligned = terms.equal(terms.bvand(address, number(abi.MH_PAGE_BYTES - 1)), number(0))
    is_good = terms.land([is_aligned, terms.bvult(address, limit)])
    stand_in = terms.ite(is_aligned, number(-abi.MH_PAGE_BYTES), number(1))
    is_list = terms.distinct(terms.bvand(flags, number(abi.MH_BATCH_LIST, 32)), number(0, 32))
    claim = terms.lor([is_list, terms.equal(found, terms.ite(is_good, address, stand_in))])
    path.prove(claim, "the lane starts elsewhere")


def holds(code: Code) -> None:
    """Raises `Refuted`."""
    start = code.label("ring", "fetch")
    stops = {RETURN, *(code.label(*RULES[op].handler) for op in served(code))}
    for urgent in (False, True):
        for path in paths(code, start, partial(submission, None, urgent), stops):
            path.ends_at(RETURN)
            status = path.machine.register("eax")
            is_bad_op = path.machine.terms.equal(status, path.machine.number(Status.MH_BAD_OP.value, 32))
            path.prove(is_bad_op, "an operation that there is not is not refused as such")
        for op in served(code):
            statuses = {check(path, op, urgent) for path in paths(code, start, partial(submission, op, urgent), stops)}
            require((None in statuses) == (not urgent or RULES[op].urgent), f"{op.name}: handed over never, or always")


THEOREMS = (
    Theorem(
        "a submission is handed over if, and only if, it is what abi.h says of its operation",
        holds,
        {"regions": partial(build_helper, "regions", Options()), "SNP": partial(helper_image, "helper, SEV-SNP")},
        "regions",
        "helper",
        (Part("dispatch", "dispatch"),),
    ),
)
