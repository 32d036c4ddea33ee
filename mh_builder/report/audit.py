"""The audit: every mapping against the rules that make sense for its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as MappingOf
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from mh_builder.report import bits, promises, registers, rules
from mh_builder.report.finding import Finding
from mh_builder.report.layout import Layout

MAX_FINDINGS = 200
"""Findings of one rule that are told; the report says where there are more."""

Check = Callable[[Layout], Iterator[Finding]]


class Rule(NamedTuple):
    """A rule: what must hold, and what has to be known to check it."""

    holds: str
    check: Check
    why: str
    """Why it matters."""
    needs_plan: bool = False
    needs_c_bit: bool = False
    needs_cpu: bool = False
    needs_efer: bool = False
    is_note: bool = False
    """Whether what it finds is told and no fault: a system may have its reasons."""


RULES: MappingOf[str, Rule] = MappingProxyType(
    {
        "mapped": Rule("something is mapped", rules.nothing_mapped, "an audit of nothing finds nothing"),
        "bounded": Rule("all of the tables was read", rules.bounded, "what was not read is not audited"),
        "table-missing": Rule("every table is in memory", rules.missing_tables, "what it maps is not known"),
        "reserved": Rule(
            "no entry has a reserved bit or an address above MAXPHYADDR", rules.reserved_bits, "the CPU faults on it"
        ),
        "loop": Rule("no table serves two levels", rules.loops, "its entries mean two things"),
        "c-bit": Rule(
            "no mapping lies above the C-bit", rules.above_c_bit, "nobody can reach that memory", needs_c_bit=True
        ),
        "w^x": Rule("nothing is writable and executable", rules.writable_code, "who can write there can execute"),
        "code-writable": Rule(
            "no code is writable through another mapping", rules.code_writable_elsewhere,
            "who can write there can execute",
        ),
        "write-protect": Rule(
            "CR0.WP is set", registers.kernel_writes, "without it read-only is so for user mode alone", needs_cpu=True
        ),
        "no-execute": Rule(
            "EFER.NXE is set", registers.no_execute, "without it NX is a reserved bit, and all is executable",
            needs_cpu=True, needs_efer=True,
        ),
        "user-executable": Rule(
            "CR4.SMEP is set where user mode has code", registers.executed_user_pages,
            "the kernel may be led to execute it", needs_cpu=True, is_note=True,
        ),
        "user-reachable": Rule(
            "CR4.SMAP is set where user mode has memory", registers.reached_user_pages,
            "the kernel may be led to read and write it", needs_cpu=True, is_note=True,
        ),
        "keys-ignored": Rule(
            "CR4.PKE is set where pages have protection keys", registers.ignored_keys,
            "without it they protect nothing", needs_cpu=True, is_note=True,
        ),
        "two-views": Rule(
            "no page is both private and shared", rules.two_views, "each view sees noise of what the other writes",
            needs_c_bit=True,
        ),
        "code-shared": Rule(
            "nothing that is executed is shared", rules.shared_code, "code is fetched as private memory in any case",
            needs_c_bit=True,
        ),
        "table-shared": Rule(
            "every pointer to a table has the C-bit", rules.shared_tables,
            "the CPU walks private memory; who reads the table by its entry sees ciphertext", needs_c_bit=True,
        ),
        "table-exposed": Rule(
            "no table is in memory that is mapped as shared", rules.exposed_tables,
            "who writes there changes what the guest maps", needs_c_bit=True,
        ),
        "device-private": Rule(
            "devices and flash are not mapped as private", rules.private_devices, "no device decrypts", needs_c_bit=True
        ),
        "table-writable": Rule(
            "no table is writable", promises.writable_tables, "who can write a table can map everything",
            needs_plan=True,
        ),
        "missing": Rule("every page of the image is mapped", promises.missing_pages, "it faults", needs_plan=True),
        "place": Rule(
            "every page of the image is where it was linked", promises.misplaced_pages, "it is another page",
            needs_plan=True,
        ),
        "rights": Rule(
            "every page has the rights of its section", promises.wrong_rights, "more is an attack, less a fault",
            needs_plan=True,
        ),
        "view": Rule(
            "every page has the view of its section", promises.wrong_view, "secrets are private, the ring is shared",
            needs_plan=True, needs_c_bit=True,
        ),
        "write-back": Rule(
            "all memory is write-back", bits.not_write_back, "the order of accesses to the ring depends on it",
            needs_plan=True,
        ),
        "global": Rule(
            "no page is global", bits.global_pages, "it would outlive the tables that it came from", needs_plan=True
        ),
        "key": Rule("no page has a protection key", bits.keyed_pages, "PKRU is what somebody left", needs_plan=True),
        "entry": Rule(
            "entries have A and D, and no bit that the builder does not set", bits.odd_entries,
            "what nobody put there was put there by somebody", needs_plan=True,
        ),
        "guard": Rule(
            "a page that is not mapped lies below each stack", promises.missing_guards,
            "a stack that is too small writes over what lies below", needs_plan=True,
        ),
        "null": Rule(
            "nothing is mapped where a wiped pointer leads", promises.null_pages, "using one must fault",
            needs_plan=True,
        ),
        "user": Rule("no page is for user mode", promises.user_pages, "there is no user mode", needs_plan=True),
        "alias": Rule(
            "no memory is seen twice, but the 32-bit start", promises.aliases, "rights hold for one place alone",
            needs_plan=True,
        ),
        "helper-reachable": Rule(
            "the helper is not reachable through the RAM window", promises.reachable_helper,
            "a request could read keys, or write code", needs_plan=True,
        ),
        "ram-missing": Rule(
            "all RAM is mapped but the helper", promises.missing_ram, "what is not cannot move", needs_plan=True
        ),
        "ram-place": Rule(
            "RAM is seen where requests name it", promises.misplaced_ram, "another page would move", needs_plan=True
        ),
        "vmsa-place": Rule(
            "VMSAs are seen in their window", promises.misplaced_vmsas, "another page would move", needs_plan=True
        ),
        "unexpected": Rule(
            "nothing else is mapped", promises.unexpected, "what is not needed can only be misused", needs_plan=True
        ),
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
    notes: tuple[Finding, ...] = ()
    """What rules that make notes have found."""


def audit(layout: Layout, names: Iterable[str] = RULES) -> Audit:
    """Check every mapping of `layout` against the rules of these `names`."""
    findings: list[Finding] = []
    notes: list[Finding] = []
    applied, cut = [], []
    skipped: dict[str, str] = {}
    chosen = frozenset(names)
    for name, rule in RULES.items():
        reason = "" if name in chosen else "not asked for"
        reason = reason or _inapplicable(rule, layout)
        if reason:
            skipped[name] = reason
        else:
            applied.append(name)
            found = list(islice(rule.check(layout), MAX_FINDINGS + 1))
            (notes if rule.is_note else findings).extend(item._replace(rule=name) for item in found[:MAX_FINDINGS])
            if len(found) > MAX_FINDINGS:
                cut.append(name)
    return Audit(tuple(findings), tuple(applied), skipped, tuple(cut), tuple(notes))


def _inapplicable(rule: Rule, layout: Layout) -> str:
    """Why the rule cannot be checked, empty where it can."""
    if rule.needs_plan and layout.plan is None:
        return "only an image of ours promises it"
    if rule.needs_c_bit and layout.geometry.c_bit is None:
        return "there is no C-bit"
    if rule.needs_cpu and layout.cpu is None:
        return "the registers of the CPU are not known"
    if rule.needs_efer and layout.cpu is not None and layout.cpu.efer is None:
        return "EFER is not in the dump; give it with --efer"
    return ""
