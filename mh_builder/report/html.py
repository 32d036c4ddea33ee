"""The pieces of a report as one HTML file: no script, no network, light and dark as the reader likes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from mh_builder.report.layout import Layout
from mh_builder.report.svg import NARROW, WIDE, draw

_CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#59636e;--paper:#fff;--line:#d5dae0;--head:#f3f4f6;--mark:#eaf1fb}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#9aa4af;--paper:#14171a;--line:#343a41;--head:#1e2227;
--mark:#1d2b3f}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1232px;padding:16px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,'Segoe UI',Helvetica,Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{max-width:75ch}.lead{color:var(--dim)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.82rem;width:100%}
th,td{text-align:left;padding:4px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{background:var(--head);font-weight:600;white-space:nowrap}tbody tr:hover{background:var(--mark)}
td.code{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:nowrap}
[title]{text-decoration:underline dotted var(--dim);cursor:help}
figure{margin:0}figure svg{max-width:100%;height:auto;display:block}figcaption{color:var(--dim);font-size:.82rem}
.narrow{display:none}
@media (max-width:760px){body{padding:8px}.wide{display:none}.narrow{display:block}
.narrow svg{width:100%}th,td{padding:4px 6px}
.rows thead{display:none}.rows tr{display:grid;
grid-template-columns:7.5em 1fr;padding:6px 0;border-bottom:1px solid var(--line)}
.rows td{display:contents}.rows td>span{overflow-wrap:anywhere}
.rows td::before{content:attr(data-name);color:var(--dim);white-space:nowrap}}
"""


class PageSection(NamedTuple):
    """A part of a page: `body` is HTML."""

    title: str
    body: str


class Cell(NamedTuple):
    """Text of a cell, and what hovering over it tells."""

    text: str
    detail: str = ""


def page(title: str, lead: str, sections: Iterable[PageSection]) -> str:
    """The whole file; `title` and `lead` are text."""
    parts = [f"<section><h2>{escape(part.title)}</h2>{part.body}</section>" for part in sections]
    view = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    # Without an icon of its own a browser asks the network for one.
    head = f'{view}<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_CSS}</style>'
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>',
            f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>',
            *parts,
            "</body></html>\n",
        ]
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> str:
    """A table; on a narrow screen each row becomes a list of names and values."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(_cell(name, cell) for name, cell in zip(columns, row, strict=True))}</tr>\n" for row in rows
    )
    return (
        f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
    )


def _cell(name: str, cell: str | Cell) -> str:
    text, detail = (cell, "") if isinstance(cell, str) else cell
    kind = ' class="code"' if text.startswith("0x") else ""
    tip = f' title="{escape(detail)}"' if detail else ""
    return f'<td{kind} data-name="{escape(name)}"><span{tip}>{escape(text)}</span></td>'


def figure(layout: Layout, caption: str = "") -> str:
    """The picture of a layout, in the shape that the screen has room for."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    shapes = (("wide", WIDE), ("narrow", NARROW))
    pictures = "".join(f'<div class="{name}">{draw(layout, style)}</div>' for name, style in shapes)
    return f"<figure>{pictures}{words}</figure>"
