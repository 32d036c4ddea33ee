"""`compare`: the address-space schemes side by side, what each costs and what each withstands, from one run."""

from __future__ import annotations

import argparse
import os
from typing import Any

from rich.console import Console
from rich.progress import Progress

from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.matrix import print_attacks
from mh_cli.output import print_json
from mh_compare.attacks import ATTACKS
from mh_compare.results import Comparison
from mh_compare.run import Task, compare, tasks


def add_verb(verbs: Any) -> None:  # noqa: ANN401 - argparse keeps the type of its subparsers to itself
    """Add the verb to the command line."""
    parser = verbs.add_parser("compare", help="schemes side by side: cost, abilities, attacks", description=__doc__)
    options.add_scheme(parser, help_text="one scheme (default: all)")
    options.add_part(parser)
    parser.add_argument(
        "--attack", action="append", default=[], choices=list(ATTACKS), metavar="ATTACK", help="only this attack"
    )
    parser.add_argument("--jobs", type=_jobs, default=_cpus(), metavar="N", help="processes (default: one a CPU)")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do everything, or what was asked for, and print it."""
    chosen = tasks(arguments.attack or ATTACKS, options.schemes(arguments), arguments.part)
    result = _with_progress(chosen, arguments.jobs)
    if arguments.json:
        print_json("compare/1", result.as_json())
    else:
        print_attacks(result.attacks)
    return GOOD


def _with_progress(chosen: list[Task], jobs: int) -> Comparison:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("attacking", total=len(chosen))
        return compare(chosen, jobs, lambda: progress.advance(bar))


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _jobs(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)
