"""`psp`: play every sequence that could isolate the helper with the secure processor, and say what comes of it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.paging import GIB
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json

if TYPE_CHECKING:
    from mh_emulator.psp.command import Command
    from mh_emulator.psp.status import Status
    from mh_emulator.verdict.run import Verdict

DEFAULT_PARTS = ("rome", "milan")
"""One whose caches are not coherent between ASIDs, and one whose are."""

RAM_LIMIT = GIB
"""Of the helper: what the sequences need, and no more pages to be moved than that takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("--part", choices=sorted(PARTS), help=f"one processor (default: {' and '.join(DEFAULT_PARTS)})")
    form = parser.add_mutually_exclusive_group()
    options.add_json(form)
    form.add_argument("--markdown", action="store_true", help="print the page docs/isolated.md")
    parser.add_argument("--trace", action="store_true", help="name every command of the firmware as it runs, on stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play everything; print the verdict."""
    from mh_cli import psp_page
    from mh_cli.table import print_cases

    verdict = judge([arguments.part] if arguments.part else list(DEFAULT_PARTS), _Trace() if arguments.trace else None)
    if arguments.json:
        print_json("psp/1", verdict.as_json())
    elif arguments.markdown:
        print(psp_page.render(verdict), end="")
    else:
        print_cases(verdict)
    return GOOD


def judge(parts: list[str], trace: _Trace | None = None) -> Verdict:
    """Build the helper, and play every sequence on these parts. Raises `WrongPlaintext`, `HelperStopped`."""
    from mh_emulator.verdict.run import run as play_all

    image = build_helper("isolated", Options(ram_limit=RAM_LIMIT))
    return play_all([PARTS[name] for name in parts], parse_image(image.data), trace)


class _Trace:
    """Prints commands; one that is given again and again is printed once, with a count when it ends."""

    def __init__(self) -> None:
        self._case = ""
        self._last = ""
        self._count = 0

    def __call__(self, case: str, policy: int, command: Command, status: Status) -> None:
        """One command of the firmware."""
        line = f"  {command.name} ({command:#05x}): {status.name} ({status:#04x})"
        heading = f"{case}, policy {policy:#x}"
        if heading == self._case and line == self._last:
            self._count += 1
            return
        if self._count > 1:
            print(f"    {self._count} times", file=sys.stderr)
        if heading != self._case:
            print(heading, file=sys.stderr)
        print(line, file=sys.stderr)
        self._case, self._last, self._count = heading, line, 1
