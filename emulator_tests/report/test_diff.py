"""The difference of two layouts: one seeded change is one difference, of the right kind, and nothing else."""

from __future__ import annotations

import pytest

from emulator_tests.report.build import NX, PAGE, Memory, P, W
from emulator_tests.report.faults import C_BIT, FAULTS, Patient
from emulator_tests.report.layouts import layout_of
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import GIB, MIB, Geometry
from mh_builder.report.diff import Kind, diff
from mh_builder.report.image import image_layout
from mh_builder.report.layout import Layout
from mh_builder.report.physical import raw_dump
from mh_builder.report.reader import read_tables
from mh_builder.schemes.space import Options

KINDS = {
    "code-writable": [((Kind.RIGHTS,), ".text")],
    "user-page": [((Kind.RIGHTS,), ".bss")],
    "ram-shared": [((Kind.VIEW,), "guest RAM")],
    "ring-private": [((Kind.VIEW,), ".ring")],
    "image-page-missing": [((Kind.VANISHED,), ".bss")],
    "ram-shifted": [((Kind.MOVED,), "guest RAM")],
    "alias": [((Kind.APPEARED,), "unexpected")],
    "ring-uncached": [((Kind.TYPE,), ".ring")],
    "code-global": [((Kind.GLOBAL,), ".text")],
    "key": [((Kind.KEY,), ".bss")],
    "not-accessed": [((Kind.ACCESSED,), ".text")],
    "not-dirty": [((Kind.DIRTY,), "guest RAM")],
    "bit-52": [((Kind.AVAILABLE,), ".text")],
    "bits-9-to-11": [((Kind.AVAILABLE,), ".bss")],
    "pages-swapped": [((Kind.MOVED,), ".bss"), ((Kind.MOVED,), ".bitmap")],
}


@pytest.mark.parametrize("name", KINDS)
def test_one_change_is_one_difference(images: dict[str, Image], name: str) -> None:
    clean, patient = layout_of(images["regions"]), Patient(images["regions"])
    FAULTS[name].seed(patient)
    changed = image_layout(bytes(patient.data), patient.base, Geometry(48, C_BIT), patient.image.sections)
    assert [(change.kinds, change.purpose) for change in diff(clean, changed)] == KINDS[name]
    back = {Kind.VANISHED: Kind.APPEARED, Kind.APPEARED: Kind.VANISHED}
    assert [(change.kinds, change.purpose) for change in diff(changed, clean)] == [
        (tuple(back.get(kind, kind) for kind in kinds), purpose) for kinds, purpose in KINDS[name]
    ]


def test_a_layout_equals_itself(scheme: str, images: dict[str, Image]) -> None:
    assert diff(layout_of(images[scheme]), layout_of(images[scheme])) == []


def test_smaller_pages_are_a_difference_of_page_size(images: dict[str, Image]) -> None:
    small = layout_of(build_helper("isolated", Options(largest_page=2 * MIB)))
    changes = [change for change in diff(layout_of(images["isolated"]), small) if change.purpose == "guest RAM"]
    assert {change.kinds for change in changes} == {(Kind.PAGES,)}
    assert sum(change.before.mapping.size for change in changes if change.before) == 64 * GIB


def dump(entries: dict[int, int]) -> Layout:
    memory = Memory()
    root = memory.chain(4, memory.table(entries))
    contents = raw_dump(bytes(memory.data))
    return Layout("dump", contents, read_tables(contents, root, Geometry(52, None)))


def test_dumps_are_compared_by_virtual_address() -> None:
    entries = {index: 0x10000 + index * PAGE | P | W | NX for index in range(6)}
    other = entries | {2: 0x70000 | P | W | NX, 3: 0x71000 | P | W | NX, 5: entries[5] & ~W}
    del other[0]
    changes = diff(dump(entries), dump(other))
    found = [(change.kinds, change.before.mapping.va // PAGE) for change in changes if change.before]
    assert found == [((Kind.VANISHED,), 0), ((Kind.MOVED,), 2), ((Kind.RIGHTS,), 5)]
    moved = changes[1]
    assert moved.before is not None
    assert moved.after is not None
    assert (moved.before.mapping.size, moved.after.mapping.gpa) == (2 * PAGE, 0x70000)
