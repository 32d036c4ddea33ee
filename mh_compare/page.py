"""A comparison as files: one HTML page, one drawing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby

from mh_builder.report.html import PageSection, figure, page
from mh_builder.report.layout import Layout
from mh_builder.report.svg import WIDE, draw
from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Cell, Comparison
from mh_compare.rows import families, places

_CSS = """
.compare td,.compare th{white-space:normal;min-width:6.5em}
.compare td:first-child,.compare th:first-child{min-width:15em}
.compare th[colspan]{font-size:.9rem;background:var(--paper);padding-top:1rem}
.compare td span[title]{text-decoration:none}
.compare td.start{min-width:4.5em;color:var(--dim)}
.verdict{white-space:nowrap!important;font-weight:600}
.verdict::before{display:inline-block;width:1.3em;font-weight:700}
.refused{color:var(--good)}.refused::before{content:"\\2713"}
.detected{color:var(--seen)}.detected::before{content:"\\25C9"}
.harmless{color:var(--dim)}.harmless::before{content:"\\2248"}
.succeeds{color:var(--bad)}.succeeds::before{content:"\\2717"}
.cost td{font-variant-numeric:tabular-nums}
:root{--good:#17643a;--seen:#0b5a76;--bad:#b42318}
@media (prefers-color-scheme:dark){:root{--good:#6fd39a;--seen:#6cc4e6;--bad:#ff8a7a}}
dl.why dt{font-weight:600;margin-top:.8rem}dl.why dd{margin:0;max-width:90ch}
code{font-size:.9em}
@media (max-width:760px){.compare thead{display:none}.compare tr{display:block;padding:8px 0;
border-bottom:1px solid var(--line)}.compare td,.compare th[colspan]{display:block;border:0;padding:1px 6px}
.compare td:first-child{font-weight:600}.compare td+td::before{content:attr(data-name) ": ";display:inline;width:auto;
color:var(--dim);font-weight:400}.compare td.compare td.start{min-width:4.5em;color:var(--dim)}
.verdict{white-space:normal!important}}
"""

_CLASS = {
    Verdict.REFUSED.value: "refused",
    Verdict.DETECTED.value: "detected",
    Verdict.HARMLESS.value: "harmless",
    Verdict.SUCCEEDS.value: "succeeds",
}

_LEGEND = (
    (Verdict.REFUSED, "something says no before anything happens: helper, KVM, secure processor, or there is no slot"),
    (Verdict.DETECTED, "carried out, and noticed before anything comes of it"),
    (Verdict.HARMLESS, "carried out, and gives the attacker nothing that he can choose or read"),
    (Verdict.SUCCEEDS, "the attacker has what he wants; below stands why nothing in SEV prevents it"),
)


def as_html(result: Comparison, layouts: Sequence[Layout]) -> str:
    """One self-contained file; hovering over a value tells the command that reproduces it."""
    sections = []
    if result.cells:
        sections.append(PageSection("What each costs and can do", _style() + _cells(result)))
    if result.attacks:
        sections.append(PageSection("Attacks, carried out", _legend() + _attacks(result)))
        sections.append(PageSection("Why some succeed", _reasons(result.attacks)))
    drawings = "".join(f"<h3>{escape(layout.name)}</h3>{figure(layout)}" for layout in layouts)
    sections.append(PageSection("Address spaces, from the page tables", drawings))
    lead = f"Measured and executed on the emulated part {result.part}. Hover over a value for its command."
    return page("The address spaces of the SEV migration helper, compared", lead, sections)


def as_svg(layouts: Iterable[Layout]) -> str:
    """All address spaces in one drawing, one below the other."""
    parts, top = [], 0.0
    for layout in layouts:
        drawing = draw(layout, WIDE)
        height = float(_HEIGHT.search(drawing)[1])  # type: ignore[index]
        heading = f'<text x="12" y="{top + 22:g}" font-size="16" font-weight="600">{escape(layout.name)}</text>'
        parts += [heading, drawing.replace("<svg ", f'<svg y="{top + 32:g}" height="{height:g}" ', 1)]
        top += 32 + height
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE.width}" viewBox="0 0 {WIDE.width} {top:g}"'
    return f'{frame} font-family="system-ui,sans-serif">\n{"".join(parts)}</svg>\n'


_HEIGHT = re.compile(r'viewBox="0 0 \d+ ([\d.]+)"')


def _style() -> str:
    return f"<style>{_CSS}</style>"


def _legend() -> str:
    words = "".join(
        f'<li><span class="verdict {_CLASS[verdict.value]}">{verdict.value}</span>: {escape(text)}</li>'
        for verdict, text in _LEGEND
    )
    return f"{_style()}<ul>{words}</ul>"


def _cells(result: Comparison) -> str:
    rows = "".join(
        f"<tr><td>{escape(title)}</td>{''.join(map(_cell, cells))}</tr>\n"
        for title, cells in groupby(result.cells, key=lambda cell: cell.title)
    )
    return _table("cost", ("",), result.layouts, rows)


def _cell(cell: Cell) -> str:
    tip = escape("\n".join(filter(None, (cell.detail, cell.how))))
    return f'<td data-name="{escape(cell.layout)}"><span title="{tip}">{escape(cell.value)}</span></td>'


def _attacks(result: Comparison) -> str:
    return _table("attacks", ("attack", "guest"), result.layouts, "".join(_families(result)))


def _families(result: Comparison) -> Iterator[str]:
    for family, rows in families(result.attacks):
        yield f'<tr><th colspan="{2 + len(result.layouts)}">{escape(family)}</th></tr>\n'
        for row in rows:
            cells = "".join(map(_outcome, row.cells))
            start = f'<td class="start" data-name="guest">{escape(row.start)}</td>'
            yield f"<tr><td>{escape(row.title)}</td>{start}{cells}</tr>\n"


def _outcome(cell: Sequence[AttackResult]) -> str:
    tip = escape("\n".join(f"{result.seen}\n{result.how}" for result in cell))
    first = cell[0]
    word = f'<span title="{tip}">{escape(first.outcome)}</span>'
    return f'<td class="verdict {_CLASS[first.outcome]}" data-name="{escape(first.layout)}">{word}</td>'


def _table(kind: str, corner: Sequence[str], layouts: Sequence[str], rows: str) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in (*corner, *layouts))
    return (
        f'<div class="scroll"><table class="compare {kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table></div>"
    )


def _reasons(attacks: Sequence[AttackResult]) -> str:
    found = {attack.attack: attack for attack in attacks if attack.why}
    entries = []
    for attack in found.values():
        where = places([other for other in attacks if other.attack == attack.attack and other.why])
        text = f"{attack.seen} ({where}). {attack.why}"
        entries.append(f"<dt>{escape(attack.title)}</dt><dd>{escape(text)}</dd>")
    return f'<dl class="why">{"".join(entries)}</dl>'
