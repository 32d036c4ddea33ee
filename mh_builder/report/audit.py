"""The audit: every mapping against the rules that make sense for its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Mapping as MappingOf
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from mh_builder.report import promises, rules
from mh_builder.report.finding import Finding
from mh_builder.report.layout import Layout

MAX_FINDINGS = 200
"""Findings of one rule that are told; the report says where there are more."""

Check = Callable[[Layout], Iterator[Finding]]


class Rule(NamedTuple):
    """A rule: what must hold, and what has to be known to check it."""

    holds: str
    check: Check
    needs_plan: bool = False
    needs_c_bit: bool = False


RULES: MappingOf[str, Rule] = MappingProxyType(
    {
        "bounded": Rule("all of the tables was read", rules.bounded),
        "table-missing": Rule("every table is in memory", rules.missing_tables),
        "reserved": Rule("no entry has a reserved bit or an address above MAXPHYADDR", rules.reserved_bits),
        "loop": Rule("no table serves two levels", rules.loops),
        "c-bit": Rule("no mapping lies above the C-bit", rules.above_c_bit, needs_c_bit=True),
        "w^x": Rule("nothing is writable and executable", rules.writable_code),
        "code-writable": Rule("no code is writable through another mapping", rules.code_writable_elsewhere),
        "two-views": Rule("no page is both private and shared", rules.two_views, needs_c_bit=True),
        "table-shared": Rule("every table is private", promises.shared_tables, needs_plan=True, needs_c_bit=True),
        "table-writable": Rule("no table is writable", promises.writable_tables, needs_plan=True),
        "missing": Rule("every page of the image is mapped", promises.missing_pages, needs_plan=True),
        "place": Rule("every page of the image is where it was linked", promises.misplaced_pages, needs_plan=True),
        "rights": Rule("every page has the rights of its section", promises.wrong_rights, needs_plan=True),
        "view": Rule("every page has the view of its section", promises.wrong_view, needs_plan=True, needs_c_bit=True),
        "guard": Rule("a page that is not mapped lies below each stack", promises.missing_guards, needs_plan=True),
        "null": Rule("nothing is mapped where a wiped pointer leads", promises.null_pages, needs_plan=True),
        "user": Rule("no page is for user mode", promises.user_pages, needs_plan=True),
        "alias": Rule("no memory is seen twice, but the 32-bit start", promises.aliases, needs_plan=True),
        "helper-reachable": Rule(
            "the helper is not reachable through the RAM window", promises.reachable_helper, needs_plan=True
        ),
        "ram-missing": Rule("all RAM is mapped but the helper", promises.missing_ram, needs_plan=True),
        "ram-place": Rule("RAM is seen where requests name it", promises.misplaced_ram, needs_plan=True),
        "vmsa-place": Rule("VMSAs are seen in their window", promises.misplaced_vmsas, needs_plan=True),
        "unexpected": Rule("nothing else is mapped", promises.unexpected, needs_plan=True),
    }
)  # fmt: skip
"""Every rule by its name."""


class Audit(NamedTuple):
    """What was found; `skipped` are the rules that make no sense here, with the reason."""

    findings: tuple[Finding, ...]
    applied: tuple[str, ...]
    skipped: dict[str, str]
    cut: tuple[str, ...]
    """Rules with more findings than were taken."""


def audit(layout: Layout) -> Audit:
    """Check every mapping of `layout`."""
    findings: list[Finding] = []
    applied, cut = [], []
    skipped: dict[str, str] = {}
    for name, rule in RULES.items():
        if rule.needs_plan and layout.plan is None:
            skipped[name] = "only an image of ours promises it"
        elif rule.needs_c_bit and layout.geometry.c_bit is None:
            skipped[name] = "there is no C-bit"
        else:
            applied.append(name)
            found = list(islice(rule.check(layout), MAX_FINDINGS + 1))
            findings.extend(item._replace(rule=name) for item in found[:MAX_FINDINGS])
            if len(found) > MAX_FINDINGS:
                cut.append(name)
    return Audit(tuple(findings), tuple(applied), skipped, tuple(cut))
