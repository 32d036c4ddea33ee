"""`snp`: play what a host of SNP guests can ask of the secure processor and of the RMP, and say what comes of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mh_builder.parts import PARTS
from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json
from mh_emulator.psp.snp.tcb import TCB_LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mh_emulator.snp.run import Case

DEFAULT_PARTS = ("milan", "turin")
"""Two whose versions are laid out differently."""

_WIDTH = 260
"""More than the table takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "--part", choices=sorted(TCB_LAYOUTS), help=f"one processor (default: {' and '.join(DEFAULT_PARTS)})"
    )
    form = parser.add_mutually_exclusive_group()
    options.add_json(form)
    form.add_argument("--markdown", action="store_true", help="print the page docs/snp.md")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play everything; print what came of it."""
    from mh_cli import snp_page
    from mh_emulator.snp.run import run as play_all

    cases = play_all([PARTS[name] for name in ([arguments.part] if arguments.part else DEFAULT_PARTS)])
    if arguments.json:
        print_json("snp/1", {"cases": [case.as_json() for case in cases]})
    elif arguments.markdown:
        print(snp_page.render(cases), end="")
    else:
        _print_table(cases)
    return GOOD


def _print_table(cases: Sequence[Case]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("case", "part", "steps", "told", "outcome"):
        table.add_column(name, no_wrap=True)
    for case in cases:
        for number, step in enumerate(case.steps):
            first = number == 0
            times = f" x {step.count}" if step.count > 1 else ""
            told = f"[red]{step.told}[/]" if step.refused else step.told
            table.add_row(
                case.id if first else "", case.part if first else "", step.command + times, told,
                case.outcome.value if first else "",
            )  # fmt: skip
    Console(width=_WIDTH).print(table)
