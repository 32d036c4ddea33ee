"""For every packet header in the ring: which are taken, and which status the others get; no field is read elsewhere."""

from __future__ import annotations

from emulator_tests.theorems.linked import Code, Part, offsets
from emulator_tests.theorems.symbolic import Machine, Node, paths, require
from emulator_tests.theorems.theorem import about_regions
from mh_abi import abi

LANE, PACKET = 0x1000_0000, 0x2000_0000
"""A lane, and a packet's place in the ring: nothing else is known there."""
Status = abi.mh_status
HEADER = {name: len(field.type) for name, field in abi.mh_packet.fields.items() if name != "tag"}
IN_TURN = ("epoch", "sequence")


def headers(machine: Machine) -> None:
    """Any header in the ring, and any of our own."""
    at, place = offsets(), 0
    machine.put("r13", LANE)
    machine.write(LANE + at["lane.slot_packet"], PACKET.to_bytes(8, "little"))
    for name, size in HEADER.items():
        machine.any_at(PACKET + place, size, f"their {name}")
        machine.any_at(LANE + at["lane.packet"] + place, size, f"our {name}")
        place += size
    require(place == abi.MH_PACKET_AAD_BYTES, f"{place} bytes of header")


def equal(machine: Machine, name: str) -> Node:
    """Whether both have the same there."""
    return machine.terms.equal(machine.variables[f"their {name}"], machine.variables[f"our {name}"])


def is_status(machine: Machine, status: abi.mh_status) -> Node:
    return machine.terms.equal(machine.register("eax"), machine.number(status.value, 32))


def first_that(machine: Machine, *reasons: tuple[Node, abi.mh_status]) -> Node:
    """That the status is that of the first reason that is true; MH_DONE without any."""
    terms, claim = machine.terms, is_status(machine, Status.MH_DONE)
    for reason, status in reversed(reasons):
        claim = terms.ite(reason, is_status(machine, status), claim)
    return claim


def check_holds(code: Code) -> None:
    """Raises `Refuted`."""
    for path in paths(code, code.label("packet", "check_packet"), headers):
        machine, terms = path.machine, path.machine.terms
        same = terms.land([equal(machine, name) for name in ("magic", "version", "length")])
        is_zero = terms.equal(machine.variables["their reserved"], machine.number(0, 32))
        claim = first_that(
            machine,
            (terms.lnot(terms.land([same, is_zero])), Status.MH_BAD_PACKET),
            (terms.lnot(equal(machine, "session")), Status.MH_WRONG_SESSION),
            (terms.lnot(equal(machine, "stream")), Status.MH_WRONG_STREAM),
        )
        path.prove(claim, "another status")


def turn_holds(code: Code) -> None:
    """Raises `Refuted`."""
    for path in paths(code, code.label("packet", "check_turn"), headers):
        machine, terms = path.machine, path.machine.terms
        theirs, ours = (machine.variables[f"{side} sequence"] for side in ("their", "our"))
        claim = first_that(
            machine,
            (terms.lnot(equal(machine, "epoch")), Status.MH_WRONG_EPOCH),
            (terms.bvult(theirs, ours), Status.MH_REPLAYED),
            (terms.bvugt(theirs, ours), Status.MH_OUT_OF_ORDER),
        )
        path.prove(claim, "another status")


def chunk_header(machine: Machine) -> None:
    headers(machine)
    machine.any_at(LANE + offsets()["lane.address"], 8, "asked for")


def chunk_holds(code: Code) -> None:
    """Raises `Refuted`. The two above, with what a chunk of pages has of its own."""
    for path in paths(code, code.label("batch", "check_chunk"), chunk_header):
        machine, terms = path.machine, path.machine.terms
        is_plain = terms.equal(machine.variables["their urgent"], machine.number(0))
        same = terms.land(
            [equal(machine, name) for name in ("magic", "version", "length", "session", "stream", *IN_TURN)]
        )
        is_there = terms.equal(machine.variables["their address"], machine.variables["asked for"])
        is_empty = terms.equal(machine.variables["their reserved"], machine.number(0, 32))
        right = terms.land([is_plain, same, is_there, is_empty])
        path.prove(
            terms.equal(is_status(machine, Status.MH_DONE), right), "a wrong header passes, or a right one does not"
        )


def kind_inputs(machine: Machine) -> None:
    headers(machine)
    machine.any_at(LANE + offsets()["lane.flags"], 2, "flags")


def kind_holds(code: Code) -> None:
    """Raises `Refuted`. VMSAs where VMSAs are asked for, pages and zeros elsewhere; 0 for all else."""
    for path in paths(code, code.label("batch", "expected_kind"), kind_inputs):
        machine, terms, number = path.machine, path.machine.terms, path.machine.number
        kind, flags = terms.zx(16, machine.variables["their kind"]), terms.zx(16, machine.variables["flags"])
        is_vmsa = terms.distinct(terms.bvand(flags, number(abi.MH_BATCH_VMSA, 32)), number(0, 32))
        known = {one: terms.equal(kind, number(one.value, 32)) for one in abi.mh_kind}
        is_page = terms.lor([known[abi.mh_kind.MH_KIND_PAGE], known[abi.mh_kind.MH_KIND_ZERO]])
        is_right = terms.ite(is_vmsa, known[abi.mh_kind.MH_KIND_VMSA], is_page)
        found = terms.equal(machine.register("eax"), terms.ite(is_right, kind, number(0, 32)))
        path.prove(found, "another kind")


THEOREMS = (
    about_regions(
        "a header has the status of its first wrong field", check_holds, Part("packet", "check_packet", "check_turn")
    ),
    about_regions(
        "a packet is in turn, replayed or out of order", turn_holds, Part("packet", "check_turn", "open_packet")
    ),
    about_regions(
        "a chunk's header passes if, and only if, it is the one expected", chunk_holds, Part("batch", "check_chunk")
    ),
    about_regions("a packet has a kind that was asked for", kind_holds, Part("batch", "expected_kind", "check_chunk")),
)
