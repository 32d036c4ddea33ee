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

    from mh_emulator.snp.kvm.needs import Need
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
    parser.add_argument("--kvm", action="store_true", help="what KVM would have to add for a migration of SNP guests")
    form = parser.add_mutually_exclusive_group()
    options.add_json(form)
    form.add_argument("--markdown", action="store_true", help="print the page docs/snp.md")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play everything; print what came of it."""
    from mh_cli import snp_page
    from mh_emulator.snp.kvm.needs import needs as execute_all
    from mh_emulator.snp.run import run as play_all

    parts = [PARTS[name] for name in ([arguments.part] if arguments.part else DEFAULT_PARTS)]
    if arguments.markdown:
        print(snp_page.render(play_all(parts), execute_all(parts)), end="")
    elif arguments.kvm:
        needs = execute_all(parts)
        if arguments.json:
            print_json("snp-kvm/1", {"needs": [need.as_json() for need in needs]})
        else:
            _print_needs(needs)
    else:
        cases = play_all(parts)
        if arguments.json:
            print_json("snp/1", {"cases": [case.as_json() for case in cases]})
        else:
            _print_table(cases)
    return GOOD


def _print_needs(needs: Sequence[Need]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("need", "part", "with KVM today", "without KVM between", "missing"):
        table.add_column(name, no_wrap=True)
    for need in needs:
        today, then = need.today[-1], need.then[-1]
        told = [f"{step.command}: {step.told}" for step in (today, then)]
        table.add_row(need.id, need.part, *told, need.missing)
    Console(width=_WIDTH).print(table)


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
