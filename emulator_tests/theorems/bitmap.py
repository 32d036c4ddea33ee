"""For every page and every number of pages: the bitmaps' functions touch the bits of these pages, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from emulator_tests.theorems.linked import Code, Part, offsets
from emulator_tests.theorems.symbolic import Machine, Node, Path, paths, require
from emulator_tests.theorems.theorem import about_regions
from mh_abi import abi

VCPU = 0x1000_0000
WORD = 5
"""Index of the first word; `bits` alone turns a page into one, and that is proven of every page."""
MARKED, CLAIMED = 128, 64
"""The most pages at once here: up to three words of which one is whole, and up to two. A chunk has up to 512."""
_ALL = (1 << 64) - 1


def bits_inputs(machine: Machine) -> None:
    page, pages = machine.any("rsi", "page"), machine.any("ecx", "pages")
    machine.assume(machine.terms.bvuge(pages, machine.number(1, 32)))
    machine.assume(machine.terms.bvule(page, machine.number(_ALL - (1 << 32))))


def words(most: int) -> range:
    """Of a map, those in which so many pages can lie, by their distance from the first."""
    return range((63 + most - 1) // 64 + 1)


def low_bits(machine: Machine, number: Node) -> Node:
    """A word with that many bits set from the lowest, up to 64."""
    terms = machine.terms
    full = terms.bvuge(number, machine.number(64))
    some = terms.bvsub(terms.bvshl(machine.number(1), number), machine.number(1))
    return terms.ite(full, machine.number(_ALL), some)


def bits_hold(code: Code) -> None:
    """Raises `Refuted`. The first word of any run of pages, and what of the run is in it."""
    for path in paths(code, code.label("bitmap", "bits"), bits_inputs):
        machine, terms, number = path.machine, path.machine.terms, path.machine.number
        page, pages = machine.variables["page"], terms.zx(32, machine.variables["pages"])
        word, found, taken = machine.register("r9"), machine.register("rdx"), terms.zx(32, machine.register("r8d"))
        first = terms.bvand(page, number(63))
        room = terms.bvsub(number(64), first)
        path.prove_all(
            [
                (terms.equal(word, terms.bvlshr(page, number(6))), "another word"),
                (terms.equal(taken, terms.ite(terms.bvult(room, pages), room, pages)), "another number of pages"),
                (terms.equal(found, terms.bvshl(low_bits(machine, taken), first)), "another mask"),
                (terms.equal(machine.register("rsi"), page), "the page is lost"),
                (terms.equal(machine.register("ecx"), machine.variables["pages"]), "the number is lost"),
            ]
        )


def run_inputs(most: int, machine: Machine) -> None:
    """Pages that begin in a certain word, and whatever the maps have there."""
    terms, number = machine.terms, machine.number
    page, pages = machine.any("rsi", "page"), machine.any("ecx", "pages")
    machine.assume(terms.equal(terms.bvlshr(page, number(6)), number(WORD)))
    machine.assume(terms.land([terms.bvuge(pages, number(1, 32)), terms.bvule(pages, number(most, 32))]))
    machine.put("r12", VCPU)
    machine.any_at(VCPU + offsets()["vcpu.live"], 4, "live")
    for name, value in (("low", _ALL), ("high", 0)):
        machine.write(VCPU + offsets()[f"vcpu.bitmap_{name}"], value.to_bytes(8, "little"))
    for name, start in maps(machine).items():
        for index in words(most):
            machine.any_at(start + 8 * (WORD + index), 8, f"{name} {index}")


def maps(machine: Machine) -> dict[str, int]:
    """Virtual addresses of the three maps."""
    known = machine.code.params
    return {"claimed": known.bitmap_va, "moved": known.moved_va, "shared": known.shared_va}


def mask(machine: Machine, index: int) -> Node:
    """What of the run is in that word."""
    terms, number = machine.terms, machine.number
    start = number(64 * (WORD + index))
    page, pages = machine.variables["page"], terms.zx(32, machine.variables["pages"])
    end = terms.bvadd(page, pages)
    below = terms.ite(terms.bvuge(page, start), terms.bvsub(page, start), number(0))
    to = terms.ite(terms.bvuge(end, start), terms.bvsub(end, start), number(0))
    return terms.bvand(low_bits(machine, to), terms.bvnot(low_bits(machine, below)))


def after(machine: Machine, name: str, index: int) -> Node:
    """A word of a map now."""
    return machine.memory(maps(machine)[name] + 8 * (WORD + index), 8)


Claims = Iterator[tuple[Node, str]]


def unchanged(machine: Machine, most: int, *names: str) -> Claims:
    for name in names:
        for index in words(most):
            now, before = after(machine, name, index), machine.variables[f"{name} {index}"]
            yield machine.terms.equal(now, before), f"a word of {name} has changed"


def changed(machine: Machine, most: int, name: str, become: Callable[[Machine, Node, Node], Node]) -> Claims:
    for index in words(most):
        right = become(machine, machine.variables[f"{name} {index}"], mask(machine, index))
        yield machine.terms.equal(after(machine, name, index), right), f"other pages of {name} have changed"


def changes(code: Code, label: str, name: str, become: Callable[[Machine, Node, Node], Node]) -> None:
    """Raises `Refuted`. That function makes this of every word of the map, and leaves the others alone."""
    for path in paths(code, code.label("bitmap", label), partial(run_inputs, MARKED)):
        others = (other for other in maps(path.machine) if other != name)
        path.prove_all([*changed(path.machine, MARKED, name, become), *unchanged(path.machine, MARKED, *others)])


def added(machine: Machine, before: Node, those: Node) -> Node:
    return machine.terms.bvor(before, those)


def removed(machine: Machine, before: Node, those: Node) -> Node:
    return machine.terms.bvand(before, machine.terms.bvnot(those))


def marks_hold(code: Code) -> None:
    """Raises `Refuted`."""
    changes(code, "mark_shared", "shared", added)
    changes(code, "mark_private", "shared", removed)
    changes(code, "give_back", "claimed", removed)


def any_of(machine: Machine, name: str) -> Node:
    """Whether any page of the run is in the map, as it was."""
    terms = machine.terms
    found = [terms.bvand(machine.variables[f"{name} {index}"], mask(machine, index)) for index in words(CLAIMED)]
    return terms.lor([terms.distinct(one, machine.number(0)) for one in found])


def claim_holds(code: Code) -> None:
    """Raises `Refuted`. All pages of the run or none, none that is shared or was moved."""
    statuses = {check_claim(path) for path in paths(code, code.label("bitmap", "claim"), partial(run_inputs, CLAIMED))}
    require(len(statuses) == 3, "an outcome never happens")


def check_claim(path: Path) -> int:
    machine, terms = path.machine, path.machine.terms
    status = machine.register("eax").evaluate()
    is_live = terms.distinct(machine.variables["live"], machine.number(0, 32))
    shared = any_of(machine, "shared")
    repeated = terms.lor([any_of(machine, "claimed"), terms.land([is_live, any_of(machine, "moved")])])
    claims = [(terms.equal(machine.register("eax"), machine.number(status, 32)), "the path has several statuses")]
    claims += unchanged(machine, CLAIMED, "moved", "shared")
    if status == abi.mh_status.MH_DONE.value:
        claims.append((terms.lnot(terms.lor([shared, repeated])), "a page is claimed that must not be"))
        claims += changed(machine, CLAIMED, "claimed", added)
        claims += reach(machine)
    else:
        is_shared = status == abi.mh_status.MH_SHARED.value
        require(is_shared or status == abi.mh_status.MH_REPEATED.value, f"status {status}")
        claims.append((shared if is_shared else repeated, "refused without a reason"))
        claims += unchanged(machine, CLAIMED, "claimed")
    path.prove_all(claims)
    return int(status)


def reach(machine: Machine) -> Claims:
    """The block knows of all words that have bits of its own: the next epoch is made from them."""
    terms, number = machine.terms, machine.number
    last = terms.bvsub(terms.bvadd(machine.variables["page"], terms.zx(32, machine.variables["pages"])), number(1))
    low, high = known_words(machine)
    yield terms.bvule(low, number(WORD)), "the first word is not known"
    yield terms.bvugt(high, terms.bvlshr(last, number(6))), "the last word is not known"


def known_words(machine: Machine) -> tuple[Node, Node]:
    """From which word up to which one the block has bits."""
    low, high = (machine.memory(VCPU + offsets()[f"vcpu.bitmap_{name}"], 8) for name in ("low", "high"))
    return low, high


def word_inputs(machine: Machine) -> None:
    word = machine.any("r9", "word")
    machine.assume(machine.terms.bvult(word, machine.number(_ALL)))
    machine.put("r12", VCPU)
    for name in ("low", "high"):
        machine.any_at(VCPU + offsets()[f"vcpu.bitmap_{name}"], 8, name)


def widen_holds(code: Code) -> None:
    """Raises `Refuted`. The words that are known, and one more, and as few beside them as a range can have."""
    for path in paths(code, code.label("bitmap", "widen"), word_inputs):
        machine, terms = path.machine, path.machine.terms
        word, low, high = (machine.variables[name] for name in ("word", "low", "high"))
        behind = terms.bvadd(word, machine.number(1))
        now_low, now_high = known_words(machine)
        path.prove_all(
            [
                (terms.equal(now_low, terms.ite(terms.bvult(word, low), word, low)), "begins elsewhere"),
                (terms.equal(now_high, terms.ite(terms.bvugt(behind, high), behind, high)), "ends elsewhere"),
                (terms.equal(machine.register("r9"), word), "the word is lost"),
            ]
        )


THEOREMS = (
    about_regions(
        "any run of pages has the first word of a map, the bits and the number that `bits` says",
        bits_hold,
        Part("bitmap", "bits", "claim", also=("and r10d, 63", "sub r8d, r10d", "cmova r8d, ecx", "shl rdx, cl")),
    ),
    about_regions(
        f"marks are set and taken back for the pages of a run alone (bound: {MARKED} pages)",
        marks_hold,
        Part("bitmap", "give_back", "bitmap_turn"),
    ),
    about_regions(
        f"a run is claimed whole or not at all, and only if none of it is shared or has moved (bound: {CLAIMED} pages)",
        claim_holds,
        Part("bitmap", "claim", "widen"),
    ),
    about_regions(
        "the words of which a vCPU is known to have bits are widened to any word",
        widen_holds,
        Part("bitmap", "widen", "give_back"),
    ),
)
