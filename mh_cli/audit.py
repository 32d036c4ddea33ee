"""`audit`: check every mapping of an image or a memory dump against the rules that make sense for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mh_builder.helper import build_helper
from mh_builder.image.output import write_files
from mh_builder.parts import PARTS
from mh_builder.report.audit import MAX_FINDINGS, RULES, Audit, Rule, audit
from mh_builder.report.diff import diff
from mh_builder.report.finding import Finding
from mh_builder.report.layout import Layout
from mh_builder.report.mapping import Mapping
from mh_builder.report.open import DEFAULT_PART, layout_of
from mh_builder.report.sarif import Audited, sarif
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import Options, human
from mh_cli import __version__, options, source
from mh_cli.errors import BAD, GOOD
from mh_cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "images", type=Path, nargs="*", metavar="IMAGE",
        help=f"{source.WHAT} (default: every scheme, built now)",
    )  # fmt: skip
    source.add_memory(parser)
    parser.add_argument("--all-cpus", action="store_true", help="the tables of every CPU of a dump")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--only", action="append", choices=list(RULES), metavar="RULE", help="check this rule alone")
    chosen.add_argument("--ignore", action="append", choices=list(RULES), metavar="RULE", help="do not check this rule")
    parser.add_argument("--rules", action="store_true", help="list all rules, and why they are there; stop")
    parser.add_argument("--sarif", type=Path, metavar="FILE", help="write the findings as SARIF 2.1.0 too")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Audit all; bad where anything is found."""
    if arguments.rules:
        return _list(arguments)
    names = arguments.only or [name for name in RULES if name not in (arguments.ignore or ())]
    audits: list[tuple[Layout, Audit]] = []
    audited: list[Audited] = []
    for path, layout in _layouts(arguments):
        found = audit(layout, names)
        audits.append((layout, found))
        audited.append(Audited(layout.name, path, found))
    if arguments.sarif:
        write_files({arguments.sarif.name: sarif(audited, __version__).encode()}, arguments.sarif.parent)
    if arguments.json:
        print_json("audit/1", {"audits": [_as_json(layout, found) for layout, found in audits]})
    else:
        for layout, found in audits:
            for line in _lines(layout, found):
                print(line)
        for line in _of_cpus([layout for layout, _ in audits] if arguments.all_cpus else []):
            print(line)
    return BAD if any(found.findings for _, found in audits) else GOOD


def _list(arguments: argparse.Namespace) -> int:
    if arguments.json:
        rows = [
            {
                "rule": name,
                "holds": rule.holds,
                "why": rule.why,
                "needs": [what for what, needed in _needs(rule).items() if needed],
            }
            for name, rule in RULES.items()
        ]
        print_json("audit-rules/1", {"rules": rows})
        return GOOD
    for name, rule in RULES.items():
        needs = ", ".join(what for what, needed in _needs(rule).items() if needed)
        print(f"{name:16} {rule.holds}: {rule.why}{f' (for {needs})' if needs else ''}")
    return GOOD


def _needs(rule: Rule) -> dict[str, bool]:
    return {
        "images of ours": rule.needs_plan,
        "memory with a C-bit": rule.needs_c_bit,
        "dumps with registers": rule.needs_cpu,
        "dumps of which EFER is known": rule.needs_efer,
    }


def _layouts(arguments: argparse.Namespace) -> Iterator[tuple[Path | None, Layout]]:
    for path in arguments.images:
        if arguments.all_cpus:
            yield from ((path, layout) for layout in source.read_every_cpu(path, arguments))
        else:
            yield path, source.read_layout(path, arguments)
    if arguments.images:
        return
    part = PARTS[arguments.part or DEFAULT_PART]
    chosen = Options.for_part(part)
    for scheme in SCHEMES:
        yield None, layout_of(build_helper(scheme, chosen), part.geometry(encrypted=True))


def _of_cpus(layouts: Sequence[Layout]) -> Iterator[str]:
    """How the tables of a dump's CPUs differ from those of its first, and which have none."""
    for layout in layouts:
        if layout.cpu is not None and layout.cpu is next((cpu for cpu in layout.cpus if cpu.has_tables), None):
            without = [str(number) for number, cpu in enumerate(layout.cpus) if not cpu.has_tables]
            if without:
                yield f"{layout.name}: not audited, no tables that are read: CPU {', '.join(without)}"
    for layout in layouts[1:]:
        if layout.cpus and layout.cpus == layouts[0].cpus:
            count = len(diff(layouts[0], layout))
            yield f"{layout.name}: {count} difference{'s' * (count != 1)} from {layouts[0].name}: see `diff --cpu`"


def _lines(layout: Layout, found: Audit) -> Iterator[str]:
    for finding in found.findings:
        yield f"{layout.name}: {finding.rule}: {finding.what}"
    for note in found.notes:
        yield f"{layout.name}: note: {note.rule}: {note.what}"
    for rule in found.cut:
        yield f"{layout.name}: {rule}: more than {MAX_FINDINGS} findings, the rest is not listed"
    mapped = sum(mapping.size for mapping in layout.reading.mappings)
    count = len(found.findings)
    verdict = f"{count} finding{'s' * (count > 1)}" if count else "clean"
    looked = f"{len(layout.reading.mappings)} mappings of {human(mapped)} in {len(layout.reading.tables)} tables"
    if layout.cpu is not None:
        yield f"{layout.name}: {layout.cpu.summary()}"
    yield f"{layout.name}: {verdict}; {looked}, {len(found.applied)} of {len(RULES)} rules"
    for reason in dict.fromkeys(found.skipped.values()):
        names = ", ".join(rule for rule, why in found.skipped.items() if why == reason)
        yield f"{layout.name}: not checked, {reason}: {names}"


def _as_json(layout: Layout, found: Audit) -> dict[str, Any]:
    return {
        "name": layout.name,
        "clean": not found.findings,
        "mappings": len(layout.reading.mappings),
        "tables": len(layout.reading.tables),
        "findings": [_finding_as_json(finding, layout) for finding in found.findings],
        "notes": [_finding_as_json(finding, layout) for finding in found.notes],
        "applied": {rule: RULES[rule].holds for rule in found.applied},
        "not_applied": found.skipped,
        "cut": list(found.cut),
    }


def _finding_as_json(finding: Finding, layout: Layout) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "what": finding.what,
        "mappings": [_mapping_as_json(mapping, layout) for mapping in finding.mappings],
    }


def _mapping_as_json(mapping: Mapping, layout: Layout) -> dict[str, Any]:
    return {
        "va": hex(mapping.va),
        "gpa": hex(mapping.gpa),
        "bytes": mapping.size,
        "page_bytes": mapping.page_bytes,
        "rights": mapping.rights,
        "user": mapping.user,
        "view": None if layout.geometry.c_bit is None else mapping.view,
    }
