"""A comparison as text: one column a layout, or on a narrow terminal one paragraph a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Comparison
from mh_compare.rows import families, name, places

_STYLE = {Verdict.REFUSED: "green", Verdict.DETECTED: "cyan", Verdict.HARMLESS: "blue", Verdict.SUCCEEDS: "bold red"}
_WORD = {Verdict.HARMLESS: "garbage"}
_NARROW = 80
_PIPED = 120
"""Width in columns where the output is no terminal."""


def print_comparison(result: Comparison) -> None:
    """Print what there is: cells, attacks, and what was seen where an attack succeeds."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED)
    if len(result.layouts) == 1 or console.width < _NARROW:
        _print_list(console, result)
    else:
        _print_tables(console, result)
    _print_reasons(console, result.attacks)


def _print_tables(console: Console, result: Comparison) -> None:
    if result.cells:
        table = _table("", result.layouts)
        for title, cells in groupby(result.cells, key=lambda cell: cell.title):
            table.add_row(title, *(cell.value for cell in cells))
        console.print(table)
    if result.attacks:
        table = _table("attack", ["guest", *result.layouts])
        for family, rows in families(result.attacks):
            table.add_row(Text(family, style="bold"))
            for row in rows:
                table.add_row(f"  {row.title}", row.start, *map(_word, row.results))
        console.print(table)


def _table(what: str, columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(what, overflow="fold")
    for column in columns:
        table.add_column(column.replace("-", "-\n"), overflow="fold")
    return table


def _print_list(console: Console, result: Comparison) -> None:
    for title, lines in groupby(_lines(result), key=lambda line: line[0]):
        console.print(Text(title, style="bold"))
        for _, where, text in lines:
            console.print(Text(f"  {where}: ").append_text(text))


def _lines(result: Comparison) -> Iterator[tuple[str, str, Text]]:
    for cell in result.cells:
        yield cell.title, cell.layout, Text(f"{cell.value} ({cell.detail})" if cell.detail else cell.value)
    for attack in result.attacks:
        yield attack.title, name(attack), _word(attack).append(f": {attack.seen}")


def _print_reasons(console: Console, attacks: Sequence[AttackResult]) -> None:
    reasons = {result.attack: result for result in attacks if result.why}
    for result in reasons.values():
        where = places([other for other in attacks if other.attack == result.attack and other.why])
        console.print(Text(f"\n{result.title}: {result.seen} ({where}). {result.why}"))


def _word(result: AttackResult) -> Text:
    verdict = Verdict(result.outcome)
    return Text(_WORD.get(verdict, verdict.value), style=_STYLE[verdict])
