"""`bench`: how fast the toolchain and the emulator are on this machine. Figures are never checked."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from bench.speed import measure
from mh_cli import options
from mh_cli.errors import GOOD


def add_verb(verbs: Any) -> None:  # noqa: ANN401 - argparse keeps the type of its subparsers to itself
    """Add the verb to the command line."""
    parser = verbs.add_parser("bench", help="measure builds and emulated migrations", description=__doc__)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    figures = measure()
    if arguments.json:
        json.dump({"figures": [figure._asdict() for figure in figures]}, sys.stdout, indent=2)
        print()
        return GOOD
    for figure in figures:
        print(f"{figure.name:44} {figure.value:12.2f} {figure.unit}")
    return GOOD
