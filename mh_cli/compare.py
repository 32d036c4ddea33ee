"""`compare`: the schemes side by side, what each costs and withstands, from one run; or two files' layouts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from mh_builder.image.output import write_files
from mh_builder.schemes import EVERY_SCHEME
from mh_builder.schemes.space import Start
from mh_cli import options, sides, source
from mh_cli.errors import GOOD, UsageError
from mh_cli.matrix import print_comparison
from mh_cli.output import print_json
from mh_cli.show import region_as_json
from mh_compare.attacks import ATTACKS
from mh_compare.columns import COLUMNS
from mh_compare.decision import decide
from mh_compare.drawing import as_svg
from mh_compare.markdown import render
from mh_compare.page import as_html
from mh_compare.results import Comparison
from mh_compare.run import Task, compare, layout, results, tasks
from mh_emulator.psp.snp.tcb import TCB_LAYOUTS

_WORTH_A_PROCESS = 20
"""Tasks that take about as long as it takes to begin another process."""

_OF_SCHEMES = ("scheme", "start", "column", "attack", "jobs", "evidence", "markdown")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "files", type=Path, nargs="*", metavar="FILE",
        help=f"two files, to be shown side by side instead of the schemes; each a {source.WHAT}",
    )  # fmt: skip
    parser.add_argument(
        "--scheme", choices=list(EVERY_SCHEME), metavar="SCHEME", help="one scheme (default: all)"
    )  # fmt: skip
    options.add_part(parser)
    parser.add_argument(
        "--start", choices=[start.value for start in Start],
        help="attacks on guests of plain SEV (host), where the host sets registers, SEV-ES or SNP only (default: all)",
    )  # fmt: skip
    for option, names in (("--column", COLUMNS), ("--attack", ATTACKS)):
        parser.add_argument(
            option, action="append", default=[], choices=list(names), metavar="NAME",
            help=f"only this one: {', '.join(names)}",
        )  # fmt: skip
    parser.add_argument("--html", type=Path, metavar="FILE", help="everything, with pictures, as one page")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="the address spaces in one drawing")
    parser.add_argument("--jobs", type=_jobs, metavar="N", help="processes (default: one a CPU, fewer for little work)")
    parser.add_argument(
        "--evidence", action="store_true", help="say of each attack what happened: calls, addresses, answers of helpers"
    )
    source.add_dump(parser)
    form = parser.add_mutually_exclusive_group()
    options.add_json(form)
    form.add_argument("--markdown", action="store_true", help="print the page docs/compare.md")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do everything, or what was asked for, and print it."""
    if arguments.files:
        return _files(arguments)
    given = next((name for name in source.DUMP if getattr(arguments, name)), None)
    if given is not None:
        raise UsageError(f"--{given.replace('_', '-')} is about two files, and none is named")
    names = [*arguments.column, *arguments.attack] or [*COLUMNS, *ATTACKS]
    starts = _starts(arguments)
    schemes = _schemes(arguments, starts)
    chosen = tasks(names, schemes, arguments.part, starts)
    if not chosen:
        raise UsageError(f"--start {arguments.start}: none of these attacks makes sense there")
    result = _with_progress(chosen, arguments.jobs or _jobs_for(chosen))
    layouts = [layout(scheme, arguments.part) for scheme in schemes] if arguments.html or arguments.svg else []
    if arguments.html is not None:
        _write(arguments.html, as_html(result, layouts))
    if arguments.svg is not None:
        _write(arguments.svg, as_svg(layouts))
    if not arguments.evidence:
        result = result.without_evidence()
    if arguments.json:
        decision = decide(result)
        print_json("compare/3", result.as_json() | {"decision": None if decision is None else decision.as_json()})
    elif arguments.markdown:
        print(render(result), end="")
    else:
        print_comparison(result)
    return GOOD


def _starts(arguments: argparse.Namespace) -> tuple[Start, ...]:
    """Which kinds of guests are asked for; else all that the part has."""
    has_snp = arguments.part in TCB_LAYOUTS
    if arguments.start is None:
        return tuple(start for start in Start if has_snp or start is not Start.SNP)
    start = Start(arguments.start)
    if start is Start.SNP and not has_snp:
        raise UsageError(f"--start snp: {arguments.part} has no SEV-SNP, {', '.join(sorted(TCB_LAYOUTS))} have")
    return (start,)


def _schemes(arguments: argparse.Namespace, starts: Sequence[Start]) -> list[str]:
    """The one that is asked for; else all that have one of these starts."""
    if arguments.scheme is None:
        return [name for name, scheme in EVERY_SCHEME.items() if set(starts) & set(scheme.starts)]
    has = EVERY_SCHEME[arguments.scheme].starts
    if not set(starts) & set(has):
        tried = f"--start {arguments.start}" if arguments.start else f"--part {arguments.part}"
        raise UsageError(f"{tried}: scheme {arguments.scheme} has start {', '.join(start.value for start in has)}")
    return [arguments.scheme]


def _files(arguments: argparse.Namespace) -> int:
    if len(arguments.files) != 2:
        raise UsageError(f"{len(arguments.files)} file{'s' * (len(arguments.files) > 1)}: two are put side by side")
    given = next((name for name in _OF_SCHEMES if getattr(arguments, name)), None)
    if given is not None:
        raise UsageError(f"--{given} is about schemes: of two files only the page tables are compared")
    if not arguments.part_named:
        arguments.part = None
    return sides.run(arguments, arguments.files, region_as_json)


def _write(path: Path, text: str) -> None:
    write_files({path.name: text.encode()}, path.parent)


def _with_progress(chosen: list[Task], jobs: int) -> Comparison:
    console = Console(stderr=True)
    # Processes are forked before the progress bar has its thread.
    with (
        results(chosen, jobs) as coming,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        return compare(chosen, progress.track(coming, total=len(chosen), description="comparing"))


def _jobs_for(chosen: list[Task]) -> int:
    return min(len(os.sched_getaffinity(0)), 1 + len(chosen) // _WORTH_A_PROCESS)


def _jobs(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)
