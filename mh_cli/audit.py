"""`audit`: check every mapping of an image or a memory dump against the rules that make sense for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mh_builder.helper import build_helper
from mh_builder.image.output import write_files
from mh_builder.parts import PARTS
from mh_builder.report.audit import MAX_FINDINGS, RULES, Audit, audit
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
    parser.add_argument("--sarif", type=Path, metavar="FILE", help="write the findings as SARIF 2.1.0 too")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Audit all; bad where anything is found."""
    paths: list[Path | None] = [*arguments.images] or [None] * len(SCHEMES)
    audits = [(layout, audit(layout)) for layout in _layouts(arguments)]
    if arguments.sarif:
        audited = [Audited(layout.name, path, found) for path, (layout, found) in zip(paths, audits, strict=True)]
        write_files({arguments.sarif.name: sarif(audited, __version__).encode()}, arguments.sarif.parent)
    if arguments.json:
        print_json("audit/1", {"audits": [_as_json(layout, found) for layout, found in audits]})
    else:
        for layout, found in audits:
            for line in _lines(layout, found):
                print(line)
    return BAD if any(found.findings for _, found in audits) else GOOD


def _layouts(arguments: argparse.Namespace) -> Iterator[Layout]:
    if arguments.images:
        for path in arguments.images:
            yield source.read_layout(path, arguments)
        return
    part = PARTS[arguments.part or DEFAULT_PART]
    chosen = Options.for_part(part)
    for scheme in SCHEMES:
        yield layout_of(build_helper(scheme, chosen), part.geometry(encrypted=True))


def _lines(layout: Layout, found: Audit) -> Iterator[str]:
    for finding in found.findings:
        yield f"{layout.name}: {finding.rule}: {finding.what}"
    for rule in found.cut:
        yield f"{layout.name}: {rule}: more than {MAX_FINDINGS} findings, the rest is not listed"
    mapped = sum(mapping.size for mapping in layout.reading.mappings)
    count = len(found.findings)
    verdict = f"{count} finding{'s' * (count > 1)}" if count else "clean"
    looked = f"{len(layout.reading.mappings)} mappings of {human(mapped)} in {len(layout.reading.tables)} tables"
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
        "findings": [
            {
                "rule": finding.rule,
                "what": finding.what,
                "mappings": [_mapping_as_json(mapping, layout) for mapping in finding.mappings],
            }
            for finding in found.findings
        ],
        "applied": {rule: RULES[rule].holds for rule in found.applied},
        "not_applied": found.skipped,
        "cut": list(found.cut),
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
