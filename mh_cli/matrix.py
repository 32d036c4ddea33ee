"""A comparison as text: what tells the schemes apart first, then what is the same under all of them.

One scheme alone, and a terminal that is too narrow for a table, get a paragraph for each question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mh_compare import advice
from mh_compare.across import by_family, starts
from mh_compare.decision import Decision, decide
from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Comparison
from mh_compare.rows import NAMES, CellRow, Row, alike, apart, cell_rows, families, headline, name, reasons

_STYLE = {Verdict.REFUSED: "green", Verdict.DETECTED: "cyan", Verdict.HARMLESS: "blue", Verdict.SUCCEEDS: "bold red",
          Verdict.ABSENT: "dim"}  # fmt: skip
_NARROW = 80
_VALUE = 14
"""Columns that the value of one scheme has at the most, so that the question keeps some."""
_PIPED = 120
"""Width in columns where the output is no terminal."""


def print_comparison(result: Comparison) -> None:
    """Print what there is: cells, attacks, and what was seen where an attack succeeds."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED)
    decision = decide(result)
    if decision is not None:
        _print_decision(console, decision)
    for line in advice.under_snp(result):
        console.print(Text(line))
    if len(result.layouts) == 1 or console.width < _NARROW:
        _print_list(console, result)
    else:
        _print_tables(console, result)
    _print_reasons(console, result.attacks)
    _print_evidence(console, result.attacks)


def _print_tables(console: Console, every: Comparison) -> None:
    cells = cell_rows(every.cells)
    if apart(cells):
        table = _table("", every.layouts)
        for row in apart(cells):
            table.add_row(row.title, *(cell.value for cell in row.cells))
        console.print(table)
        console.print()
    if alike(cells):
        table = _table("the same under all", ["value"])
        for row in alike(cells):
            table.add_row(row.title, row.cells[0].value)
        console.print(table)
        console.print()
    result = every.mirrors
    found = list(families(result.attacks))
    different = [(family, apart(rows)) for family, rows in found if apart(rows)]
    if different:
        _print_attacks(console, _table("attack", ["guest", *result.layouts]), different, slice(None))
    same = [(family, alike(rows)) for family, rows in found if alike(rows)]
    if same:
        _print_attacks(console, _table("attacks that end alike under all", ["guest", "outcome"]), same, slice(1))
    if every.snp:
        _print_snp(console, every.attacks)


def _print_snp(console: Console, attacks: Sequence[AttackResult]) -> None:
    """SNP guests beside others: what ends otherwise there."""
    found = [(family, apart(rows)) for family, rows in by_family(attacks)]
    if not any(rows for _, rows in found):
        return
    table = _table("attacks that end otherwise on an SNP guest", [NAMES[start] for start in starts(attacks)])
    for family, rows in found:
        if rows:
            table.add_row(Text(headline(family), style="bold"))
        for row in rows:
            table.add_row(f"  {row.title}", *map(_said, row.said.values()))
    console.print(table)
    console.print()


def _said(said: str) -> Text:
    """An outcome, which may have others behind it, in the style of the first."""
    first = said.split(";", maxsplit=1)[0]
    return Text(said, style=next((style for verdict, style in _STYLE.items() if verdict.value == first), ""))


def _print_attacks(console: Console, table: Table, found: Iterable[tuple[str, list[Row]]], shown: slice) -> None:
    for family, rows in found:
        table.add_row(Text(headline(family), style="bold"))
        for row in rows:
            table.add_row(f"  {row.title}", row.start, *map(_word, row.results[shown]))
    console.print(table)
    console.print()


def _table(what: str, columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(what, overflow="fold")
    for column in columns:
        table.add_column(column.replace("-", "-\n"), overflow="fold", max_width=_VALUE if len(columns) > 2 else None)
    return table


def _print_list(console: Console, result: Comparison) -> None:
    cells = cell_rows(result.cells)
    rows = [row for _, found in families(result.attacks) for row in found]
    in_order: list[CellRow | Row] = [*apart(cells), *alike(cells), *apart(rows), *alike(rows)]
    for row in in_order:
        console.print(Text(row.title, style="bold"))
        for where, text in _lines(row):
            console.print(Text(f"  {where}: ").append_text(text))


def _lines(row: CellRow | Row) -> Iterable[tuple[str, Text]]:
    if isinstance(row, CellRow):
        for cell in row.cells:
            yield cell.layout, Text(f"{cell.value} ({cell.detail})" if cell.detail else cell.value)
        return
    for results in row.cells:
        for attack in results:
            yield name(attack), _word(attack).append(f": {attack.seen}")


def _print_reasons(console: Console, attacks: Sequence[AttackResult]) -> None:
    for why, found in reasons(attacks).items():
        console.print(Text(f"\n{why}", style="bold"))
        for _, title, where in found:
            console.print(Text(f"  {title} ({where})"))


def _print_decision(console: Console, decision: Decision) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in advice.HEADINGS:
        table.add_column(heading, overflow="fold")
    for names, text in advice.choices(decision):
        table.add_row(names, text)
    console.print(table)
    for line in advice.impossible(decision):
        console.print(Text(line))
    console.print()


def _print_evidence(console: Console, attacks: Sequence[AttackResult]) -> None:
    for attack in attacks:
        if attack.evidence:
            console.print(Text(f"\n{attack.title} ({name(attack)}): ").append_text(_word(attack)))
            console.print(Text("\n".join(f"  {line}" for line in (*attack.evidence, attack.seen))))


def _word(result: AttackResult) -> Text:
    verdict = Verdict(result.outcome)
    return Text(verdict.value, style=_STYLE[verdict])
