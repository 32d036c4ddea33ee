"""The audit: clean images are clean, and each seeded fault is found and named."""

from __future__ import annotations

import re

import pytest

from emulator_tests.command.conftest import docs_program
from emulator_tests.report.build import LARGE, NX, PAGE, Memory, P, U, W
from emulator_tests.report.faults import C_BIT, FAULTS, Patient
from emulator_tests.report.layouts import layout_of
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import MIB, TIB, Geometry
from mh_builder.parts import PARTS
from mh_builder.report.audit import MAX_FINDINGS, RULES, Audit, audit
from mh_builder.report.finding import Finding
from mh_builder.report.image import image_layout
from mh_builder.report.layout import Layout
from mh_builder.report.physical import raw_dump
from mh_builder.report.reader import read_tables
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import Options, Start

MILAN = Geometry(48, C_BIT)
OF_REGISTERS = {"write-protect", "no-execute", "user-executable", "user-reachable", "keys-ignored"}


def named(found: Audit, rule: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.rule == rule]


@pytest.mark.parametrize("part", ["rome", "milan", "genoa"])
def test_our_images_are_clean(scheme: str, images: dict[str, Image], part: str) -> None:
    found = audit(layout_of(images[scheme], PARTS[part].geometry(encrypted=True)))
    assert not found.findings
    assert set(RULES) - set(found.applied) == OF_REGISTERS


BUILDS = {
    "es": Options(start=Start.ES, largest_page=2 * MIB, home=256 * MIB),
    "all-ram": Options(ram_limit=4 * TIB),
    "small-pages": Options(largest_page=2 * MIB),
    "vcpus": Options(vcpus=3),
    "lowest-home": Options(home=2 * MIB),
}


@pytest.mark.parametrize("build", BUILDS)
def test_other_builds_are_clean(scheme: str, build: str) -> None:
    assert not audit(layout_of(build_helper(scheme, BUILDS[build]))).findings


def test_there_are_faults_enough() -> None:
    assert len(FAULTS) >= 20
    seeded = {fault.rule for fault in FAULTS.values()}
    # These need other tables than an image's, or registers: see below.
    assert set(RULES) - seeded == {"mapped", "bounded", "c-bit"} | OF_REGISTERS


CASES = [
    (scheme, name)
    for name, fault in FAULTS.items()
    for scheme in SCHEMES
    if fault.schemes is None or scheme in fault.schemes
]


@pytest.mark.parametrize(("scheme", "name"), CASES)
def test_fault_is_found_and_named(scheme: str, name: str, images: dict[str, Image]) -> None:
    patient = Patient(images[scheme])
    FAULTS[name].seed(patient)
    check(name, audit(image_layout(bytes(patient.data), patient.base, MILAN, patient.image.sections)))


# A flat image does not say where its code ends.
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, fault in FAULTS.items()
        if name != "nothing-executable-below" and "regions" in (fault.schemes or ("regions",))
    ],
)
def test_fault_is_found_without_section_headers(name: str, images: dict[str, Image]) -> None:
    patient = Patient(images["regions"])
    FAULTS[name].seed(patient)
    check(name, audit(image_layout(bytes(patient.data), patient.base, MILAN)))


def check(name: str, found: Audit) -> None:
    findings = named(found, FAULTS[name].rule)
    assert any(re.search(FAULTS[name].names, finding.what) for finding in findings), findings or found.findings


def test_missing_ram_is_named_as_requests_name_it(images: dict[str, Image]) -> None:
    for scheme, kind in (("alias-gpa", "GPA"), ("alias-window", "ram_addr")):
        patient = Patient(images[scheme])
        FAULTS["ram-missing"].seed(patient)
        (finding,) = named(audit(image_layout(bytes(patient.data), patient.base, MILAN)), "ram-missing")
        assert finding.what.startswith(f"RAM at {kind} 0x40000000 to ")


def test_one_page_near_null_is_found() -> None:
    """The table of the lowest 32-bit start that can be, used for the 2 MiB below it too."""
    patient = Patient(build_helper("alias-gpa", Options(home=2 * MIB)))
    patient.put(patient.entry_at(0, 2), patient.entry(patient.entry_at(2 * MIB, 2)))
    (finding,) = named(audit(image_layout(bytes(patient.data), patient.base, MILAN)), "null")
    (mapping,) = finding.mappings
    assert 0 < mapping.va < mapping.end <= 2 * MIB
    assert (mapping.size, mapping.gpa) == (PAGE, mapping.va + 2 * MIB)


def test_findings_about_two_mappings_name_both(images: dict[str, Image]) -> None:
    for name in ("code-writable-elsewhere", "both-views", "alias"):
        patient = Patient(images["regions"])
        FAULTS[name].seed(patient)
        layout = image_layout(bytes(patient.data), patient.base, MILAN)
        (finding,) = named(audit(layout), FAULTS[name].rule)
        first, second = finding.mappings
        assert first.gpa == second.gpa
        assert {hex(first.va), hex(second.va)} <= set(finding.what.split())
        assert hex(patient.spare) in finding.what


def dump_layout(memory: Memory, root: int, geometry: Geometry) -> Layout:
    dump = raw_dump(bytes(memory.data))
    return Layout("dump", dump, read_tables(dump, root, geometry))


def test_address_above_the_c_bit() -> None:
    memory = Memory()
    c = 1 << 47
    root = memory.chain(4, memory.table({0: 0x5000 | P | c, 3: 1 << 49 | 0x6000 | P | NX}), P | c)
    (finding,) = audit(dump_layout(memory, root, Geometry(52, 47))).findings
    assert finding.rule == "c-bit"
    assert "0x2000000006000" in finding.what


def test_foreign_tables_get_the_rules_that_make_sense() -> None:
    memory = Memory()
    pt = memory.table({0: 0x1000 | P | W | NX, 1: 0x1000 | P, 2: 0x2000 | P | W | U, 3: 0x3000 | P | U | W | NX})
    root = memory.chain(4, pt)
    found = audit(dump_layout(memory, root, Geometry(48, None)))
    assert [(finding.rule, [mapping.va for mapping in finding.mappings]) for finding in found.findings] == [
        ("w^x", [2 * PAGE]),
        ("code-writable", [PAGE, 0]),
    ]
    assert {"two-views", "c-bit"} <= set(found.skipped)
    assert found.skipped["guard"] == "only an image of ours promises it"
    assert found.skipped["two-views"] == "there is no C-bit"
    assert set(found.applied) | set(found.skipped) == set(RULES)


def test_both_views_across_page_sizes() -> None:
    memory = Memory()
    c = 1 << 51
    pt = memory.table({0: 6 * MIB + 5 * PAGE | P | W | NX})
    pd = memory.table({0: pt | P | W | c, 3: 6 * MIB | P | W | NX | LARGE | c})
    root = memory.table({0: memory.table({0: pd | P | W | c}) | P | W | c})
    (finding,) = audit(dump_layout(memory, root, MILAN)).findings
    assert finding.rule == "two-views"
    assert [mapping.va for mapping in finding.mappings] == [6 * MIB, 0]


def test_findings_are_bounded_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mh_builder.report.reader.MAX_MAPPINGS", 3000)
    memory = Memory()
    root = memory.table(dict.fromkeys(range(0, 512, 2), P | W))
    found = audit(dump_layout(memory, root, Geometry(52, None, 5)))
    assert found.cut == ("w^x", "code-writable")
    assert len(named(found, "w^x")) == MAX_FINDINGS
    (bound,) = named(found, "bounded")
    assert "too large" in bound.what


def test_page_lists_the_rules() -> None:
    rules = docs_program("rules")
    text = rules.PAGE.read_text()
    assert text == rules.page(text), "run `python docs/rules.py`"
