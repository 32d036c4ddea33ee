"""For every batch that dispatch hands over: no chunk of it has a slot, a packet or data outside of its lane."""

from __future__ import annotations

from functools import partial

from emulator_tests.theorems.linked import Code, Part, offsets
from emulator_tests.theorems.symbolic import Machine, Node, Path, paths, require
from emulator_tests.theorems.theorem import about_regions
from mh_abi import abi

VCPU, RING = 0x1000_0000, 0x2000_0000
"""A vCPU's block, and its ring: nothing else is known there."""


def lane_of(urgent: bool) -> int:
    return VCPU + offsets()["vcpu.urgent" if urgent else "vcpu.bulk"]


def batch(urgent: bool, machine: Machine) -> None:
    """What a theorem of dispatch.py says, and some of its pages are done with."""
    terms, number, at, lane = machine.terms, machine.number, offsets(), lane_of(urgent)
    machine.put("r12", VCPU)
    machine.put("r13", lane)
    slots = abi.MH_URGENT_SLOTS if urgent else abi.MH_RING_SLOTS
    machine.write(lane + at["lane.slots"], slots.to_bytes(4, "little"))
    for name in ("packets", "data"):
        start = RING + getattr(abi, f"MH_{'URGENT' if urgent else 'RING'}_{name.upper()}")
        machine.write(lane + at[f"lane.{name}"], start.to_bytes(8, "little"))
    slot, count, chunk = (
        terms.zx(16, machine.any_at(lane + at[f"lane.{name}"], 2, name)) for name in ("slot", "count", "chunk")
    )
    done = machine.any_at(lane + at["lane.done"], 8, "done")
    machine.assume(
        terms.land(
            [
                terms.bvule(terms.bvadd(slot, count), number(slots, 32)),
                terms.bvuge(chunk, number(1, 32)),
                terms.bvule(chunk, count),
                terms.bvult(done, terms.zx(32, count)),
            ]
        )
    )


def chunk_holds(code: Code) -> None:
    """Raises `Refuted`. From one chunk to the work on it; what is done with then is never more than the batch."""
    start, stop = code.label("batch", ".Lchunk"), code.label("batch", "move_chunk")
    for urgent in (False, True):
        for path in paths(code, start, partial(batch, urgent), (stop,)):
            check_chunk(path, urgent)


def known(machine: Machine, name: str) -> Node:
    """A field of the lane, as 32 bits."""
    return machine.terms.zx(16, machine.variables[name])


def check_chunk(path: Path, urgent: bool) -> None:
    machine, terms, number = path.machine, path.machine.terms, path.machine.number
    done = terms.extract(31, 0, machine.variables["done"])
    pages, first = machine.register("ebx"), machine.register("ebp")
    left = terms.bvsub(known(machine, "count"), done)
    slots = abi.MH_URGENT_SLOTS if urgent else abi.MH_RING_SLOTS
    chunk = known(machine, "chunk")
    path.prove_all(
        [
            (terms.equal(pages, terms.ite(terms.bvult(left, chunk), left, chunk)), "another number of pages"),
            (terms.equal(first, terms.bvadd(known(machine, "slot"), done)), "begins at another slot"),
            (terms.bvuge(pages, number(1, 32)), "a chunk of no page"),
            (terms.bvule(terms.bvadd(first, pages), number(slots, 32)), "ends outside of the lane"),
            (terms.bvule(terms.bvadd(done, pages), known(machine, "count")), "more is done with than the batch has"),
            (
                terms.equal(terms.extract(63, 32, machine.register("rbx")), number(0, 32)),
                "more pages than a register has",
            ),
        ]
    )


def slot_inputs(urgent: bool, machine: Machine) -> None:
    batch(urgent, machine)
    slots = abi.MH_URGENT_SLOTS if urgent else abi.MH_RING_SLOTS
    machine.assume(machine.terms.bvult(machine.any("eax", "at"), machine.number(slots, 32)))


def locate_holds(code: Code) -> None:
    """Raises `Refuted`. Each slot has its own packet and page, in the part of the ring that is for them."""
    for urgent in (False, True):
        for path in paths(code, code.label("packet", "locate"), partial(slot_inputs, urgent)):
            check_place(path, urgent, "packet", abi.MH_PACKET_SLOT_BYTES)
            check_place(path, urgent, "data", abi.MH_PAGE_BYTES)


def check_place(path: Path, urgent: bool, name: str, size: int) -> None:
    machine, terms, number = path.machine, path.machine.terms, path.machine.number
    part, lane = {"packet": "PACKETS", "data": "DATA"}[name], "URGENT" if urgent else "RING"
    start = RING + getattr(abi, f"MH_{lane}_{part}")
    slots = getattr(abi, f"MH_{lane}_SLOTS")
    ends = {("RING", "PACKETS"): abi.MH_RING_DATA, ("RING", "DATA"): abi.MH_URGENT_SUBMISSIONS}
    end = RING + ends.get((lane, part), abi.MH_URGENT_DATA if part == "PACKETS" else abi.MH_RING_BYTES)
    require(start + slots * size <= end, f"{lane} has no room for its {part}")
    found = machine.memory(lane_of(urgent) + offsets()[f"lane.slot_{name}"], 8)
    slot = terms.zx(32, machine.variables["at"])
    place = terms.bvadd(number(start), terms.bvmul(slot, number(size)))
    path.prove(terms.equal(found, place), f"the {name} of a slot lies elsewhere")


THEOREMS = (
    about_regions(
        "no chunk of a batch reaches out of its batch, nor a batch out of its lane",
        chunk_holds,
        Part("batch", ".Lchunk", until="call move_chunk", also=("cmova ebx, ecx",)),
        Part("batch", "remaining", "overtake", also=("add ebp, [r13 + lane.done]", "sub ebx, [r13 + lane.done]")),
    ),
    about_regions(
        "each slot has a packet and a page of its own",
        locate_holds,
        Part(
            "packet",
            "locate",
            "describe_packet",
            also=(
                "imul ecx, eax, MH_PACKET_SLOT_BYTES",
                "add rcx, [r13 + lane.packets]",
                "add rax, [r13 + lane.data]",
            ),
        ),
    ),
)
