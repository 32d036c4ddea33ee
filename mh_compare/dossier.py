"""What was seen, for every row of a comparison: as HTML that opens on demand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from mh_builder.report.html import on_demand
from mh_compare.grid import verdict
from mh_compare.results import AttackResult, Cell, Comparison
from mh_compare.rows import cell_rows, headline, places

CSS = """
.seen details{margin:.2rem 0;font-size:.85rem}.seen h4{margin:.6rem 0 0;font-weight:600}
.seen details details{margin-left:1rem}
.seen p{margin:.1rem 0;max-width:none}
.seen code,.seen pre{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.8rem}
.seen code{overflow-wrap:anywhere}
.seen pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0;padding:.4rem;background:var(--head)}
"""


def dossier(result: Comparison) -> str:
    """Everything, by row; the place of a row is `seen-` and its name."""
    parts = []
    if result.cells:
        rows = cell_rows(result.cells)
        parts.append(
            _group("Costs and abilities", (_entry(row.cells[0].column, row.title, _cells(row.cells)) for row in rows))
        )
    for family, found in groupby(result.attacks, key=lambda attack: attack.family):
        by_attack = (list(results) for _, results in groupby(found, key=lambda attack: attack.attack))
        entries = (_entry(results[0].attack, results[0].title, _attacks(results)) for results in by_attack)
        parts.append(_group(headline(family), entries))
    return f'<div class="seen">{"".join(parts)}</div>'


def _group(title: str, entries: Iterable[str]) -> str:
    return on_demand(title, "".join(entries))


def _entry(name: str, title: str, body: str) -> str:
    # A link to what stands in it opens it.
    return on_demand(headline(title), f'<div id="seen-{name}">{body}</div>')


def _cells(cells: Iterable[Cell]) -> str:
    return "".join(
        f"<h4>{escape(cell.layout)}: {escape(cell.value)}</h4>"
        f"{f'<p>{escape(cell.detail)}</p>' if cell.detail else ''}<p><code>{escape(cell.how)}</code></p>"
        for cell in cells
    )


def _attacks(results: Sequence[AttackResult]) -> str:
    """What was seen alike is said once."""
    parts = []
    for key in dict.fromkeys(map(_seen, results)):
        alike = [result for result in results if _seen(result) == key]
        commands = "<br>".join(f"<code>{escape(result.how)}</code>" for result in alike)
        parts.append(
            f"<h4>{escape(places(alike))}: {verdict(alike[0].outcome)}</h4>"
            f"<p>{escape(headline(alike[0].seen))}</p><p>{commands}</p>{_trace(alike[0].evidence)}"
        )
    return "".join(parts)


def _seen(result: AttackResult) -> tuple[object, ...]:
    return result.outcome, result.seen, result.evidence


def _trace(lines: Sequence[str]) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
