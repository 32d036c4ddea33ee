"""`bench --scale`: what a migration costs by RAM, rings, chunks and shared pages."""

from __future__ import annotations

import argparse

from mh_builder.paging import PAGE_BYTES
from mh_cli.errors import BAD, GOOD
from mh_cli.output import print_json


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and write the page; bad where this computer executes no kernel."""
    from mh_bench import crypto, scaling

    kernels = crypto.measure(PAGE_BYTES, []).kernels
    if not kernels:
        print("no kernel runs on this CPU, so no page has a time here")
        return BAD
    name = kernels[-1].kernel
    slowest = min(item.gbps for item in kernels if item.kernel == name)
    found = scaling.measure(name, PAGE_BYTES / slowest / 1e9)
    if arguments.html is not None:
        arguments.html.write_text(scaling.render(found), encoding="utf-8")
    if arguments.json:
        print_json("bench-scale/1", found.as_json())
        return GOOD
    _print("time", scaling.POINT_COLUMNS, [scaling.point_row(point) for point in (*found.curve, *found.mixes)])
    _print("the model against counted runs", scaling.CHECK_COLUMNS, [scaling.check_row(item) for item in found.checks])
    print(f"kernel {found.kernel}: {found.page_seconds * 1e9:.0f} ns a page on the slower side")
    return GOOD


def _print(title: str, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
