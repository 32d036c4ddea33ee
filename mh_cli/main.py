"""`build.py`: reads the arguments, runs a verb, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mh_builder.asm import AssemblyError
from mh_builder.paging import PagingError
from mh_builder.schemes.space import LayoutError
from mh_builder.symbols import LinkError
from mh_cli import bench, build, doctor, job, migrate
from mh_cli.errors import BAD, INTERRUPTED, USAGE, UsageError
from mh_emulator.host.migration import MigrationError
from mh_emulator.host.placement import PlacementError
from mh_emulator.host.ring import HelperRefused, HelperStopped
from mh_emulator.loader import ImageError
from mh_emulator.owner import OwnerRefuses

VERSION = "0.1.0"

_EPILOG = """\
exit codes: 0 good; 1 what was asked for is bad (source, layout, image, migration); 2 the command line
cannot be carried out; 130 interrupted. Results go to stdout, everything else to stderr."""

_BAD_THINGS = (
    AssemblyError, LinkError, LayoutError, PagingError, PlacementError, ImageError,
    MigrationError, HelperRefused, HelperStopped, OwnerRefuses, OSError,
)  # fmt: skip

_VERBS = (build, migrate, bench, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail(arguments, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD
    except UsageError as error:
        return _fail(arguments, str(error), USAGE)
    except _BAD_THINGS as error:
        return _fail(arguments, str(error), BAD)
    else:
        return code


def _fail(arguments: argparse.Namespace, message: str, code: int) -> int:
    if arguments.debug:
        raise  # noqa: PLE0704 - called from an except clause: the traceback is what was asked for
    prefix = "" if ": error: " in message else "build.py: error: "
    print(f"{prefix}{message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.py",
        description="Build the SEV migration helper and prove it by migrating a guest. Without a verb: everything.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"build.py {VERSION}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    job.add_arguments(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for module in _VERBS:
        module.add_verb(verbs)
    return parser
