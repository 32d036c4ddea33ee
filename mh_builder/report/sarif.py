"""Findings of audits as SARIF 2.1.0, for programs that collect what others have found.

Source: OASIS, Static Analysis Results Interchange Format 2.1.0: 3.13 (log), 3.14 (run), 3.49 (rule), 3.27 (result),
3.32 (address).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mh_builder.report.audit import RULES, Audit
from mh_builder.report.finding import Finding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


class Audited(NamedTuple):
    """One layout, where it was read from (None: built for this audit), and what was found."""

    name: str
    path: Path | None
    audit: Audit


def sarif(audits: Sequence[Audited], version: str) -> str:
    """The log of one run of version `version` over these audits, as text."""
    rules = [{"id": name, "shortDescription": {"text": rule.holds}} for name, rule in RULES.items()]
    results = [
        _result(audited, finding, level)
        for audited in audits
        for level, findings in (("error", audited.audit.findings), ("note", audited.audit.notes))
        for finding in findings
    ]
    run = {
        "tool": {"driver": {"name": "sev-mh audit", "semanticVersion": version, "rules": rules}},
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(audited: Audited, finding: Finding, level: str) -> dict[str, Any]:
    return {
        "ruleId": finding.rule,
        "ruleIndex": list(RULES).index(finding.rule),
        "level": level,
        "message": {"text": f"{audited.name}: {finding.what}"},
        "locations": _locations(audited, finding),
    }


def _locations(audited: Audited, finding: Finding) -> list[dict[str, Any]]:
    """One for each mapping at fault, by virtual address; the whole file where no mapping is."""
    place: dict[str, Any] = {}
    if audited.path is not None:
        uri = audited.path.as_posix() if not audited.path.is_absolute() else audited.path.as_uri()
        place["artifactLocation"] = {"uri": uri}
    addresses = [
        {"absoluteAddress": mapping.va, "length": mapping.size, "kind": "page", "name": f"GPA {mapping.gpa:#x}"}
        for mapping in finding.mappings
    ]
    physical = [place | {"address": address} for address in addresses] or ([place] if place else [])
    named = [{"fullyQualifiedName": audited.name, "kind": "module"}]
    return [{"physicalLocation": one, "logicalLocations": named} for one in physical] or [{"logicalLocations": named}]
