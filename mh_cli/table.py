"""Migration reports as one table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mh_emulator.host.migration import Report

_COLUMNS = (
    "scheme", "image\nbytes", "page-table\nbytes", "pages\nmoved", "host exits\nper page",
    "plaintext pages\nhosts see", "pages a naive\ncopy keeps", "RAM\nequal", "guest\nright", "result",
)  # fmt: skip

_WIDTH = 160
"""More than the table takes."""


def print_reports(reports: Sequence[Report]) -> None:
    """Print the table to stdout, never cut: a narrow terminal wraps its lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(_COLUMNS):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for report in reports:
        table.add_row(
            report.scheme,
            str(report.image_bytes),
            str(report.table_bytes),
            str(report.pages),
            f"{report.exits_per_page:.4f}",
            f"{report.source_plain_pages} + {report.target_plain_pages}",
            str(report.naive_equal_pages),
            _word(report.equal),
            _word(report.guest_ok),
            "[green]migrated[/]" if report.good else "[red]FAILED[/]",
        )
    Console(width=_WIDTH).print(table)


def _word(good: bool) -> str:  # noqa: FBT001 - a truth to be shown
    return "yes" if good else "[red]no[/]"
