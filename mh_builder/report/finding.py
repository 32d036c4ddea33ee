"""What an audit finds."""

from __future__ import annotations

from typing import NamedTuple

from mh_builder.report.mapping import Mapping


class Finding(NamedTuple):
    """A rule that does not hold: `what` names it with the mappings and numbers that it is about."""

    what: str
    mappings: tuple[Mapping, ...] = ()
    rule: str = ""
    """Name of the rule; the audit fills it in."""
