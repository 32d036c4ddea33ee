"""For every content of the secret page: the search for the record ends, and reads nothing outside of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from emulator_tests.theorems.linked import Code, Part
from emulator_tests.theorems.symbolic import RETURN, Machine, Node, Unknown, paths, require
from emulator_tests.theorems.theorem import about_regions
from mh_abi import abi

FURTHEST = 1 << 33
"""Beyond the page no entry is read; lengths have 32 bits, so the search can point at most there."""
Claims = Iterator[tuple[Node, str]]
ENTRY, RECORD = abi.MH_SECRET_ENTRY_BYTES, len(abi.mh_secret)


def page_of(code: Code) -> int:
    """Virtual address of the secret page."""
    return int(code.params.secret_va)


def unknown(code: Code) -> Unknown:
    return Unknown(page_of(code), page_of(code) + abi.MH_PAGE_BYTES)


def anything(machine: Machine) -> None:
    """What is read at the start of the page; all else is read by addresses that depend on it."""
    for offset, size in ((0, 8), (8, 8), (16, 4)):
        machine.any_at(page_of(machine.code) + offset, size, f"byte {offset}")


def is_guid(machine: Machine, low: Node, high: Node, guid: str) -> Node:
    """Whether 16 bytes are that GUID as EFI stores it."""
    words = (int.from_bytes(half, "little") for half in halves(guid))
    return machine.terms.land(
        [machine.terms.equal(term, machine.number(word)) for term, word in zip((low, high), words, strict=True)]
    )


def halves(guid: str) -> tuple[bytes, bytes]:
    data = uuid.UUID(guid).bytes_le
    return data[:8], data[8:]


def begins(code: Code) -> None:
    """Raises `Refuted`. The search begins within the page, or not at all."""
    start, again = code.label("secret", "secret_record"), code.label("secret", ".Lentry")
    ends = []
    for path in paths(code, start, anything, (RETURN, again), unknown(code)):
        machine, terms, page = path.machine, path.machine.terms, path.machine.number(page_of(code))
        ends.append(path.end)
        low, high, size = (machine.variables[f"byte {offset}"] for offset in (0, 8, 16))
        fits = terms.bvule(size, machine.number(abi.MH_PAGE_BYTES, 32))
        is_table = terms.land([is_guid(machine, low, high, abi.MH_SECRET_TABLE_GUID), fits])
        if path.end == RETURN:
            path.prove_all(
                [
                    (terms.equal(machine.register("rax"), machine.number(0)), "a record without a search"),
                    (terms.lnot(is_table), "a table is not searched"),
                ]
            )
            continue
        limit = terms.bvadd(page, machine.number(abi.MH_PAGE_BYTES))
        path.prove_all(
            [
                (is_table, "something is searched that is no table"),
                (terms.equal(machine.register("rsi"), page), "begins elsewhere"),
                (terms.bvuge(machine.register("r8"), page), "the table ends before it begins"),
                (terms.bvule(machine.register("r8"), limit), "the table ends behind the page"),
            ]
        )
    require(again in ends and RETURN in ends, "never begins, or always")


def somewhere(machine: Machine) -> None:
    """Within a table that ends within the page."""
    terms, page = machine.terms, machine.number(page_of(machine.code))
    at, end = machine.any("rsi", "at"), machine.any("r8", "end")
    guid = machine.code.label("secret", ".Lrecord_guid")
    machine.put("rdx", guid)
    limit = terms.bvadd(page, machine.number(abi.MH_PAGE_BYTES))
    machine.assume(terms.land([terms.bvuge(at, page), terms.bvuge(end, page), terms.bvule(end, limit)]))
    machine.assume(terms.bvule(at, machine.number(page_of(machine.code) + FURTHEST)))


def goes_on(code: Code) -> None:
    """Raises `Refuted`. From one entry to the end or to one further on; a record is whole and within the table."""
    again = code.label("secret", ".Lentry")
    found = set()
    for path in paths(code, again, somewhere, (RETURN, again), unknown(code)):
        machine, terms = path.machine, path.machine.terms
        if path.end == again:
            found.add("on")
            path.prove_all(step(machine))
            continue
        record = machine.register("rax")
        none = terms.equal(record, machine.number(0))
        if machine.model(none) is not None:
            found.add("none")
        if machine.model(terms.lnot(none)) is not None:
            found.add("record")
            path.prove_all((terms.lor([none, claim]), text) for claim, text in whole(machine, record))
    require(found == {"on", "none", "record"}, f"only {sorted(found)}")


def entry(machine: Machine) -> tuple[Node, Node]:
    """Whether the entry after the one at `at` is a record's, and its length: the first three loads of the path."""
    low, high, length = [term for name, term in machine.variables.items() if name.startswith("load")][:3]
    return is_guid(machine, low, high, abi.MH_SECRET_RECORD_GUID), length


def step(machine: Machine) -> Claims:
    """It goes further on, by one entry, which is no record."""
    terms, at, now = machine.terms, machine.variables["at"], machine.register("rsi")
    is_record, length = entry(machine)
    guid = machine.number(machine.code.label("secret", ".Lrecord_guid"))
    yield terms.lnot(is_record), "a record is passed over"
    yield terms.bvuge(length, machine.number(ENTRY, 32)), "an entry shorter than its own header"
    yield terms.equal(now, terms.bvadd(at, terms.zx(32, length))), "goes on elsewhere"
    yield terms.bvult(now, machine.number(page_of(machine.code) + FURTHEST)), "leaves what is assumed"
    yield terms.equal(machine.register("r8"), machine.variables["end"]), "the end moves"
    yield terms.equal(machine.register("rdx"), guid), "looks for another one"


def whole(machine: Machine, record: Node) -> Claims:
    """It has the record's GUID and length, and lies within the table."""
    terms, at, end = machine.terms, machine.variables["at"], machine.variables["end"]
    is_record, length = entry(machine)
    yield is_record, "a record under another GUID"
    yield terms.equal(length, machine.number(ENTRY + RECORD, 32)), "a record of another length"
    yield terms.equal(record, terms.bvadd(at, machine.number(2 * ENTRY))), "a record elsewhere"
    yield terms.bvule(terms.bvadd(record, machine.number(RECORD)), end), "a record that is not within the table"


def holds(code: Code) -> None:
    """Raises `Refuted`. By induction over the entries: `begins` is the base, `goes_on` the step."""
    begins(code)
    goes_on(code)


THEOREMS = (
    about_regions(
        "the secret's table is left alone where it is none, and searched to its end, within its page",
        holds,
        Part("secret", "secret_record", ".Lfound"),
    ),
)
