"""The pieces of a report as one HTML file: no script, no network, light and dark as the reader likes it.

Nothing in a page needs a pointer: what is said on demand stands in `details`, which fingers and keys open as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from mh_builder.report.layout import Layout
from mh_builder.report.listing import listing
from mh_builder.report.svg import NARROW, WIDE, draw

_CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#59636e;--paper:#fff;--line:#d5dae0;--head:#f3f4f6;--mark:#eaf1fb;
--link:#0b57b0}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#9aa4af;--paper:#14171a;--line:#343a41;--head:#1e2227;
--mark:#1d2b3f;--link:#8ab8ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1232px;padding:16px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,'Segoe UI',Helvetica,Arial,sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{max-width:75ch}.lead{color:var(--dim)}
a{color:var(--link)}:focus-visible{outline:2px solid var(--link);outline-offset:2px}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0;margin:.5rem 0;list-style:none}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.82rem;width:100%}
th,td{text-align:left;padding:4px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{background:var(--head);font-weight:600;white-space:nowrap}tbody tr:hover{background:var(--mark)}
td.code{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:nowrap}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
summary{cursor:pointer}details>*:not(summary){margin-left:1rem}
figure{margin:0}figure svg{max-width:100%;height:auto;display:block}figcaption{color:var(--dim);font-size:.82rem}
.narrow{display:none}
@media (min-width:1000px){.scroll{overflow:visible}thead th{position:sticky;top:0;z-index:1}}
@media (max-width:760px){body{padding:8px}.wide{display:none}.narrow{display:block}
.narrow svg{width:100%;max-width:480px;margin:0 auto}th,td{padding:4px 6px}details>*:not(summary){margin-left:0}
.rows thead{display:none}.rows tr{display:grid;
grid-template-columns:7.5em 1fr;padding:6px 0;border-bottom:1px solid var(--line)}
.rows td{display:contents}.rows td.number{text-align:left}.rows td>span,.rows td>details{overflow-wrap:anywhere}
.rows td::before{content:attr(data-name);color:var(--dim);white-space:nowrap}}
@media print{:root{color-scheme:light;font-size:11px}body{max-width:none;padding:0;font-size:1rem}
nav,details:not([open]){display:none}figure svg{max-height:85vh}
.scroll{overflow:visible}thead th{position:static}tr,figure,dt{break-inside:avoid}h2,h3{break-after:avoid}
svg,th,.verdict{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""

_NUMBER = re.compile(r"[\d.,]+( ([KMGT]iB|bytes|%))?")
_CODE = re.compile(r"0x[0-9a-f]+")


class PageSection(NamedTuple):
    """A part of a page: `body` is HTML."""

    title: str
    body: str


class Cell(NamedTuple):
    """Text of a cell, and what opening it tells."""

    text: str
    detail: str = ""


def page(title: str, lead: str, sections: Sequence[PageSection]) -> str:
    """The whole file; `title` and `lead` are text. What has several sections begins with links to them."""
    parts = [
        f'<section id="{slug(part.title)}"><h2>{escape(part.title)}</h2>{part.body}</section>' for part in sections
    ]
    view = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    # Without an icon of its own a browser asks the network for one.
    head = f'{view}<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_CSS}</style>'
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>',
            f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>',
            _contents(sections),
            *parts,
            "</body></html>\n",
        ]
    )


def slug(text: str) -> str:
    """`text` as the name of a place in a page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> str:
    """A table; on a narrow screen each row becomes a list of names and values."""
    found = list(rows)
    kinds = [{kind_of(row[number]) for row in found} for number in range(len(columns))]
    head = "".join(
        f'<th scope="col" class="{"number" if kind == {"number"} else ""}">{escape(name)}</th>'
        for name, kind in zip(columns, kinds, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(_cell(name, cell) for name, cell in zip(columns, row, strict=True))}</tr>\n" for row in found
    )
    return (
        f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
    )


def kind_of(cell: str | Cell) -> str:
    """The class by which a cell is set: `number`, `code`, or none."""
    text = cell if isinstance(cell, str) else cell.text
    if _CODE.fullmatch(text):
        return "code"
    return "number" if _NUMBER.fullmatch(text) else ""


def on_demand(summary: str, body: str) -> str:
    """`body` (HTML) behind a line of text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def figure(layout: Layout, caption: str = "") -> str:
    """The picture of a layout, in the shape that the screen has room for."""
    return pictures([draw(layout, style) for style in (WIDE, NARROW)], caption)


def pictures(shapes: Sequence[str], caption: str = "") -> str:
    """One picture as two drawings: for a wide screen and for a narrow one."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    wide, narrow = shapes
    return f'<figure><div class="wide">{wide}</div><div class="narrow">{narrow}</div>{words}</figure>'


def region_table(layout: Layout) -> str:
    """All regions of a layout as a table."""
    return table(*listing(layout.regions, layout))


def _contents(sections: Sequence[PageSection]) -> str:
    if len(sections) < 2:
        return ""
    links = "".join(f'<li><a href="#{slug(part.title)}">{escape(part.title)}</a></li>' for part in sections)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _cell(name: str, cell: str | Cell) -> str:
    text, detail = (cell, "") if isinstance(cell, str) else cell
    body = on_demand(text, escape(detail)) if detail else f"<span>{escape(text)}</span>"
    return f'<td class="{kind_of(text)}" data-name="{escape(name)}">{body}</td>'
