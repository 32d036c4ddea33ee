"""The attack matrix as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult

_STYLE = {Verdict.REFUSED: "green", Verdict.DETECTED: "cyan", Verdict.HARMLESS: "blue", Verdict.SUCCEEDS: "bold red"}
_WORD = {Verdict.HARMLESS: "garbage"}
_NARROW = 72
_PIPED = 120
"""Columns where nobody says how many there are."""


def print_attacks(attacks: Sequence[AttackResult]) -> None:
    """Print one line an attack, one column a layout; below, what was seen where an attack succeeds."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED)
    layouts = list(dict.fromkeys(result.layout for result in attacks))
    if len(layouts) == 1 or console.width < _NARROW:
        _print_list(console, attacks)
    else:
        _print_matrix(console, attacks, layouts)
    _print_reasons(console, attacks)


def _print_matrix(console: Console, attacks: Sequence[AttackResult], layouts: Sequence[str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("attack", overflow="fold")
    for layout in layouts:
        table.add_column(layout.replace("-", "-\n"), no_wrap=True)
    for family, results in groupby(attacks, key=lambda result: result.family):
        table.add_row(Text(family, style="bold"))
        for _, cells in groupby(results, key=lambda result: result.attack):
            row = list(cells)
            table.add_row(f"  {row[0].title}", *(_word(cell) for cell in row))
    console.print(table)


def _print_list(console: Console, attacks: Sequence[AttackResult]) -> None:
    for title, results in groupby(attacks, key=lambda result: result.title):
        console.print(Text(title, style="bold"))
        for result in results:
            console.print(Text(f"  {result.layout}: ").append_text(_word(result)).append(f": {result.seen}"))


def _print_reasons(console: Console, attacks: Sequence[AttackResult]) -> None:
    reasons = {result.attack: result for result in attacks if result.why}
    for result in reasons.values():
        where = ", ".join(other.layout for other in attacks if other.attack == result.attack and other.why)
        console.print(Text(f"\n{result.title}: {result.seen} ({where}). {result.why}"))


def _word(result: AttackResult) -> Text:
    verdict = Verdict(result.outcome)
    return Text(_WORD.get(verdict, verdict.value), style=_STYLE[verdict])
