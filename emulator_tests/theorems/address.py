"""For every 64-bit address: what `check_address` lets pass is a page of the guest, and it lets all of those pass.

What the guest's pages are is read from the image's own page tables: memory outside of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

from emulator_tests.theorems.linked import Code, Part, offsets
from emulator_tests.theorems.symbolic import RETURN, Machine, Node, Path, paths, require
from emulator_tests.theorems.theorem import Theorem
from mh_abi import abi
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import GIB, MIB
from mh_builder.schemes.space import Options

LANE, LIST = 0x1000_0000, 0x2000_0000
SLOT = 3
"""Of the first page of a chunk; its list has one address."""
CHUNKS = (1, 2, 3)
"""Pages of chunks that are tried; more are more turns of the same loop."""
C_BIT = 51
BUILDS = {
    "alias-gpa": Options(c_bit=C_BIT),
    "alias-window": Options(c_bit=C_BIT, home=512 * MIB, ram_limit=3 * GIB),
    "regions": Options(c_bit=C_BIT, ram_limit=1 * GIB, largest_page=2 * MIB, strict=True),
    "isolated": Options(c_bit=C_BIT, vcpus=3),
}
FAULTY, NAME = "alias-gpa", "helper, 32-bit start"
"""It has the most ranges without RAM; the blob with its code."""
PRESENT, WRITABLE, LARGE, NO_EXECUTE = 1 << 0, 1 << 1, 1 << 7, 1 << 63
"""AMD64 APM volume 2, 5.3."""
_ADDRESS = (1 << 52) - (1 << 12) - (1 << C_BIT)


def leaves(image: Image) -> Iterator[tuple[int, int, int, int]]:
    """(virtual address, mirror GPA, bytes, entry) of every page that the image's own tables map."""
    base = image.space.base
    root = abi.mh_descriptor(image.data).cr3 & _ADDRESS

    def entries(table: int, level: int, start: int) -> Iterator[tuple[int, int, int, int]]:
        size = 1 << 12 + 9 * level
        for index in range(512):
            at = table - base + 8 * index
            entry = int.from_bytes(image.data[at : at + 8], "little")
            address = start + index * size
            if not entry & PRESENT:
                continue
            if level and not entry & LARGE:
                yield from entries(entry & _ADDRESS, level - 1, address)
            else:
                yield address, entry & _ADDRESS & -size, size, entry

    for start, gpa, size, entry in entries(root, 3, 0):
        yield start if start < 1 << 47 else start + (0xFFFF << 48), gpa, size, entry


def reachable(image: Image) -> list[tuple[int, int]]:
    """(start, end) of virtual addresses behind which is memory of the guest: not of the image, private, data."""
    own = range(image.space.base, image.space.base + image.memory_bytes)
    found: list[tuple[int, int]] = []
    for start, gpa, size, entry in sorted(leaves(image)):
        if gpa in own or not entry & WRITABLE or not entry & NO_EXECUTE or not entry & 1 << C_BIT:
            continue
        assert gpa + size <= own.start or gpa >= own.stop
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], start + size
        else:
            found.append((start, start + size))
    return found


def within(machine: Machine, address: Node, ranges: list[tuple[int, int]]) -> Node:
    """That the page at the address is in one of the ranges."""
    terms, inside = machine.terms, [machine.terms.equal(machine.number(0), machine.number(1))] * 2
    for start, end in ranges:
        low, high = machine.number(start), machine.number(end - abi.MH_PAGE_BYTES)
        inside.append(terms.land([terms.bvuge(address, low), terms.bvule(address, high)]))
    return terms.lor(inside)


def clipped(ranges: list[tuple[int, int]], start: int, size: int) -> list[tuple[int, int]]:
    """What of the ranges is among `size` bytes from `start`."""
    cut = ((max(low, start), min(high, start + size)) for low, high in ranges)
    return [(low, high) for low, high in cut if low < high]


@dataclass(frozen=True, slots=True)
class Guest:
    """Where an image sees memory of the guest: RAM and VMSAs."""

    params: abi.mh_params
    ram: list[tuple[int, int]]
    vmsas: list[tuple[int, int]]


@cache
def guest(scheme: str) -> Guest:
    image = build_helper(scheme, BUILDS[scheme])
    params, seen = Code.of(image).params, reachable(image)
    vmsas = clipped(seen, params.vmsa_va, abi.MH_VMSA_BYTES)
    assert vmsas == [(params.vmsa_va, params.vmsa_va + abi.MH_VMSA_BYTES)]
    return Guest(params, clipped(seen, params.window_va, params.ram_limit), vmsas)


def inputs(machine: Machine) -> None:
    machine.put("r13", LANE)
    machine.any("rdi", "address")
    machine.any_at(LANE + offsets()["lane.flags"], 2, "flags")


def right(machine: Machine, guest: Guest, address: Node) -> tuple[Node, Node]:
    """Whether this is the address of a page of the guest that may be moved, and where the helper sees that."""
    terms, params = machine.terms, guest.params
    is_vmsa = terms.equal(terms.extract(1, 1, machine.variables["flags"]), machine.number(1, 1))
    place = terms.bvadd(address, terms.ite(is_vmsa, machine.number(params.vmsa_va), machine.number(params.window_va)))
    is_page = terms.equal(terms.extract(11, 0, address), machine.number(0, 12))
    inside = terms.ite(is_vmsa, within(machine, place, guest.vmsas), within(machine, place, guest.ram))
    return terms.land([is_page, inside]), place


def check(path: Path, guest: Guest) -> bool:
    """The theorem on one path; whether pages can pass there."""
    machine, terms = path.machine, path.machine.terms
    is_right, place = right(machine, guest, machine.variables["address"])
    is_done = terms.equal(machine.register("eax"), machine.number(abi.mh_status.MH_DONE.value, 32))
    path.prove(terms.equal(is_done, is_right), "a page passes that is none of the guest's, or one is refused")
    is_same = terms.equal(machine.register("rdx"), place)
    path.prove(terms.lor([terms.lnot(is_done), is_same]), "another page than the one that was asked for")
    return machine.model(is_done) is not None


def address_holds(code: Code) -> None:
    """Raises `Refuted`."""
    known = guest(code.image.space.name)
    found = [check(path, known) for path in paths(code, code.label("address", "check_address"), inputs)]
    require(any(found) and len(found) > 4, f"{len(found)} paths, none lets a page pass")


def chunk_of(pages: int, machine: Machine) -> None:
    """A chunk of a run or of a list, somewhere in its batch; dispatch has bounded how far."""
    inputs(machine)
    at = offsets()
    machine.put("rbx", pages)
    machine.put("rbp", SLOT)
    machine.write(LANE + at["lane.list"], LIST.to_bytes(8, "little"))
    machine.any_at(LIST + 8 * SLOT, 8, "listed")
    machine.any_at(LANE + at["lane.start"], 8, "start")
    done = machine.any_at(LANE + at["lane.done"], 8, "done")
    machine.assume(machine.terms.bvult(done, machine.number(abi.MH_RING_SLOTS)))
    if pages > 1:
        is_run = machine.terms.equal(machine.terms.extract(0, 0, machine.variables["flags"]), machine.number(0, 1))
        machine.assume(is_run)


def check_chunk(path: Path, guest: Guest, pages: int) -> bool:
    """The theorem about chunks on one path; whether a chunk can pass there."""
    machine, terms, known = path.machine, path.machine.terms, path.machine.variables
    is_listed = terms.equal(terms.extract(0, 0, known["flags"]), machine.number(1, 1))
    run = terms.bvadd(known["start"], terms.bvshl(known["done"], machine.number(12)))
    first = terms.ite(is_listed, known["listed"], run)
    does_not_wrap = terms.lor([is_listed, terms.bvuge(run, known["start"])])
    found = [right(machine, guest, terms.bvadd(first, machine.number(abi.MH_PAGE_BYTES * i))) for i in range(pages)]
    is_right = terms.land([*(one for one, _ in found), does_not_wrap])
    if path.end == RETURN:
        path.prove(terms.lnot(is_right), "a chunk of the guest's pages is refused")
        return False
    path.prove(is_right, "a chunk passes with a page that is none of the guest's")
    path.prove(terms.equal(machine.register("r15"), found[0][1]), "another page than the one that was asked for")
    return True


def chunk_holds(code: Code) -> None:
    """Raises `Refuted`. From the start of a chunk's work to where its pages are claimed."""
    known = guest(code.image.space.name)
    start, stops = code.label("batch", "move_chunk"), (RETURN, code.label("address", "page_number"))
    for pages in CHUNKS:
        found = [check_chunk(path, known, pages) for path in paths(code, start, partial(chunk_of, pages), stops)]
        require(any(found), "no chunk passes")


_CODES = {scheme: partial(build_helper, scheme, options) for scheme, options in BUILDS.items()}
THEOREMS = (
    Theorem(
        "an address passes if, and only if, it is that of a page of the guest",
        address_holds,
        _CODES,
        FAULTY,
        NAME,
        (Part("address", "check_address", "page_number"),),
    ),
    Theorem(
        "a chunk passes if, and only if, all of its pages are the guest's (bound: 3 pages)",
        chunk_holds,
        {FAULTY: _CODES[FAULTY]},
        FAULTY,
        NAME,
        (Part("batch", "chunk_address", "export_chunk"),),
    ),
)
