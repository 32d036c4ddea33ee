"""Rows of a comparison as HTML: those that tell the schemes apart with a cell for each, the others with one for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from mh_builder.report.html import kind_of, on_demand
from mh_compare.across import Across, by_family, starts
from mh_compare.outcome import Verdict
from mh_compare.results import Comparison
from mh_compare.rows import NAMES, CellRow, Row, alike, apart, cell_rows, families, headline

CLASSES = {
    Verdict.REFUSED.value: "refused",
    Verdict.DETECTED.value: "detected",
    Verdict.HARMLESS.value: "harmless",
    Verdict.SUCCEEDS.value: "succeeds",
    Verdict.ABSENT.value: "absent",
}
"""Outcome -> class of its cell."""

CSS = """
.compare td,.compare th{white-space:normal}
.compare td:first-child,.compare th:first-child{min-width:15em}
.compare td a,dl.apart a{color:inherit;text-decoration-color:var(--dim);text-underline-offset:.15em}
.compare th[colspan]{font-size:.9rem;background:var(--paper);padding-top:1rem}
.compare td.start{color:var(--dim);white-space:nowrap}
.alike{width:auto}.cost td:not(:first-child),.cost th:not(:first-child){text-align:right}
.odd{background:var(--mark)}
.verdict{white-space:nowrap;font-weight:600}
.verdict::before{display:inline-block;width:1.3em;font-weight:700}
.refused{color:var(--good)}.refused::before{content:"\\2713"}
.detected{color:var(--seen)}.detected::before{content:"\\25C9"}
.harmless{color:var(--dim)}.harmless::before{content:"\\2248"}
.absent{color:var(--dim);font-weight:400}.absent::before{content:"\\2013"}
.succeeds{color:var(--bad)}.succeeds::before{content:"\\2717"}
:root{--good:#17643a;--seen:#0b5a76;--bad:#b42318}
@media (prefers-color-scheme:dark){:root{--good:#6fd39a;--seen:#6cc4e6;--bad:#ff8a7a}}
dl.apart{font-size:.82rem;margin:0}dl.apart dt{font-weight:600;margin-top:.5rem}dl.apart dd{margin:0 0 0 .8rem}
h4{margin:1rem 0 0}
.names{display:none}
.across table{min-width:38rem}
@media (max-width:1000px){.compare td:first-child,.compare th:first-child{min-width:9em}
.compare td,.compare th{padding:4px}}
@media (max-width:640px){.grid{display:none}.names{display:block}}
@media print{.compare td a,.compare dt a{text-decoration:none}}
"""


def cell_tables(result: Comparison) -> str:
    """The columns of a comparison."""
    rows = cell_rows(result.cells)
    lines = [_Line(link(row.title, row.cells[0].column), "", _values(row)) for row in apart(rows)]
    same = [_Line(link(row.title, row.cells[0].column), "", _values(row)) for row in alike(rows)]
    return _tables([("", lines)], [("", same)], ("",), result.layouts)


def attack_tables(result: Comparison) -> str:
    """The attacks of a comparison."""
    lines, same = [], []
    for family, rows in families(result.attacks):
        lines.append((family, [_attack(row, result.part) for row in apart(rows)]))
        same.append((family, [_attack(row, result.part) for row in alike(rows)]))
    return _tables(lines, same, ("attack", "guest"), result.layouts)


def snp_tables(result: Comparison) -> str:
    """The attacks on SNP guests beside those on others: what succeeds there, and on demand the rest."""
    found = list(by_family(result.attacks))
    remains = [(family, [row for row in rows if row.remains]) for family, rows in found]
    return (
        f"<h3>What succeeds there</h3>{_snp(remains, result)}"
        + _on_demand("What ends otherwise than on guests with a mirror", found, apart, result)
        + _on_demand("What ends alike on all guests", found, alike, result)
    )


_Found = Sequence[tuple[str, Sequence[Across]]]
_Choice = Callable[[Iterable[Across]], list[Across]]


def _on_demand(
    title: str, found: _Found, chosen: Callable[[Iterable[Across]], list[Across]], result: Comparison
) -> str:
    rows = [(family, chosen(rows)) for family, rows in found]
    return on_demand(title, _snp(rows, result)) if any(lines for _, lines in rows) else ""


def _snp(found: _Found, result: Comparison) -> str:
    lines = [(family, [_Line(link(one.title, one.attack), "", _across(one)) for one in rows]) for family, rows in found]
    table = _table(lines, ("attack",), [NAMES[start] for start in starts(result.attacks)])
    return f'<div class="across">{table}</div>'


def _across(one: Across) -> Answers:
    return [(said, _said(said)) for said in one.said.values()]


def _said(said: str) -> str:
    """A word, and behind it what differs by scheme."""
    first, *others = said.split("; ")
    shown = verdict(first) if first in CLASSES else escape(first)
    return "; ".join([shown, *map(escape, others)])


def verdict(outcome: str) -> str:
    """An outcome as a word with its sign."""
    return f'<span class="verdict {CLASSES[outcome]}">{outcome}</span>'


def link(title: str, name: str) -> str:
    """A title that leads to what was seen."""
    return f'<a href="#seen-{name}">{escape(headline(title))}</a>'


_ALL = ["Under all"]
"""In the place of the schemes."""

Answers = list[tuple[str, str]]
"""(text, HTML) for each layout."""


class _Line(NamedTuple):
    title: str
    """HTML."""
    start: str
    answers: Answers


Groups = Sequence[tuple[str, Sequence[_Line]]]
"""Lines below their headings."""


def _values(row: CellRow) -> Answers:
    return [(cell.value, escape(cell.value)) for cell in row.cells]


def _attack(row: Row, part: str) -> _Line:
    where = "" if row.part == part else f", on {row.part}"
    answers = [(result.outcome, verdict(result.outcome)) for result in row.results]
    return _Line(link(row.title + where, row.attack), row.start, answers)


def _tables(different: Groups, same: Groups, corner: Sequence[str], layouts: Sequence[str]) -> str:
    parts = []
    if any(lines for _, lines in different):
        parts.append(f'<div class="grid">{_table(different, corner, layouts)}</div>')
        parts.append(f'<div class="names">{_names(different, layouts)}</div>')
    if any(lines for _, lines in same):
        folded = [(heading, [line._replace(answers=line.answers[:1]) for line in lines]) for heading, lines in same]
        parts.append(f"<h3>The same under all</h3>{_table(folded, corner, _ALL)}")
    return "".join(parts)


def _table(groups: Groups, corner: Sequence[str], layouts: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(headline(name))}</th>' for name in corner)
    head += "".join(f'<th scope="col">{escape(name)}</th>' for name in layouts)
    body = "".join(_family(heading, lines, len(corner) + len(layouts)) for heading, lines in groups if lines)
    kind = " ".join(["compare", *(["alike"] if layouts == _ALL else []), *([] if corner[0] else ["cost"])])
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
    )


def _family(heading: str, lines: Sequence[_Line], width: int) -> str:
    title = f'<tr><th colspan="{width}" scope="rowgroup">{escape(headline(heading))}</th></tr>\n' if heading else ""
    return title + "".join(map(_row, lines))


def _row(line: _Line) -> str:
    start = f'<td class="start">{escape(line.start)}</td>' if line.start else ""
    return f"<tr><td>{line.title}</td>{start}{''.join(_cells(line.answers))}</tr>\n"


def _cells(answers: Answers) -> Iterator[str]:
    """What is not as under most schemes is marked."""
    usual, times = Counter(text for text, _ in answers).most_common(1)[0]
    for text, shown in answers:
        is_odd = text != usual and 2 * times > len(answers)
        yield f'<td class="{kind_of(text)}{" odd" if is_odd else ""}">{shown}</td>'


def _names(groups: Groups, layouts: Sequence[str]) -> str:
    """The rows for a narrow screen: what schemes have in common is said of them together."""
    parts = []
    for heading, lines in groups:
        if lines:
            title = f"<h4>{escape(headline(heading))}</h4>" if heading else ""
            parts.append(f'{title}<dl class="apart">{"".join(_name(line, layouts) for line in lines)}</dl>')
    return "".join(parts)


def _name(line: _Line, layouts: Sequence[str]) -> str:
    start = f" ({escape(line.start)})" if line.start else ""
    said = [f"<dt>{line.title}{start}</dt>"]
    for shown in dict.fromkeys(answer for _, answer in line.answers):
        where = [name for name, (_, answer) in zip(layouts, line.answers, strict=True) if answer == shown]
        said.append(f"<dd>{shown}: {escape(', '.join(where))}</dd>")
    return "".join(said)
