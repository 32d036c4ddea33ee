"""Results as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mh_emulator.host.migration import Report
from mh_emulator.host.snp_migration import SnpReport
from mh_emulator.verdict.run import Outcome, Verdict

_COLUMNS = (
    "scheme", "start", "image\nbytes", "page-table\nbytes", "pages\nmoved", "host exits\nper page",
    "plaintext pages\nhosts see", "pages a naive\ncopy keeps", "RAM\nequal", "guest\nright", "result",
)  # fmt: skip

_SNP_COLUMNS = ("keys\nattested", "copies\nthat run", "context\nmoved")

_WIDTH, _WIDE = 160, 260
"""More than the tables take."""


def print_reports(reports: Sequence[Report]) -> None:
    """Print the table to stdout, never cut: a narrow terminal wraps its lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    snp = [report for report in reports if isinstance(report, SnpReport)]
    for number, name in enumerate((*_COLUMNS[:-1], *(_SNP_COLUMNS if snp else ()), _COLUMNS[-1])):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for report in reports:
        table.add_row(
            report.scheme,
            report.start,
            str(report.image_bytes),
            str(report.table_bytes),
            str(report.pages),
            f"{report.exits_per_page:.4f}",
            f"{report.source_plain_pages} + {report.target_plain_pages}",
            str(report.naive_equal_pages),
            _word(report.equal),
            _word(report.guest_ok),
            *(_snp_cells(report) if isinstance(report, SnpReport) else ()),
            "[green]migrated[/]" if report.good else "[red]FAILED[/]",
        )
    Console(width=_WIDTH).print(table)


def _snp_cells(report: SnpReport) -> tuple[str, ...]:
    return _word(report.attested), str(report.copies), "yes" if report.context else "no"


def _word(good: bool) -> str:  # noqa: FBT001 - a truth to be shown
    return "yes" if good else "[red]no[/]"


def print_cases(verdict: Verdict) -> None:
    """Print what became of every sequence, and of packets that a guest should not get."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("case", "policy", "part", "commands", "told", "outcome", "main VM, to the helper", "verdict"):
        table.add_column(name, no_wrap=True)
    for case in verdict.cases:
        cells = [case.id, f"{case.policy:#x}", case.part]
        last = [f"[green]{case.outcome.value}[/]" if case.outcome is Outcome.WORKS else case.outcome.value]
        last += [case.main_vm, case.verdict]
        for number, step in enumerate(case.steps):
            times = f" x {step.count}" if step.count > 1 else ""
            told = f"[red]{step.told}[/]" if step.refused else step.told
            table.add_row(
                *(cells if not number else [""] * 3), step.command + times, told, *(last if not number else [])
            )
    console = Console(width=_WIDE)
    console.print(table)
    console.print()
    packets = Table("packets", "secure processor", "helper", box=None, pad_edge=False, header_style="bold")
    told_by = {(handling.transport, handling.attack): handling.told for handling in verdict.packets}
    for attack in dict.fromkeys(handling.attack for handling in verdict.packets):
        packets.add_row(attack, told_by["psp", attack], told_by["helper", attack])
    console.print(packets)
