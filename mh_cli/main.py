"""`build.py`: reads the arguments, runs a verb, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mh_abi.image import ImageError
from mh_builder.asm import AssemblyError
from mh_builder.edk2.tree import TreeError
from mh_builder.firmware.errors import FirmwareError
from mh_builder.paging import PagingError
from mh_builder.report.memory import DumpError
from mh_builder.report.picture import NoPictureError
from mh_builder.report.trace import BadAddressError
from mh_builder.schemes.space import LayoutError
from mh_builder.symbols import LinkError
from mh_cli import audit, bench, build, compare, diff, doctor, interrupts, job, migrate, ovmf, psp, secret, show, walk
from mh_cli.errors import BAD, INTERRUPTED, USAGE, UsageError
from mh_emulator.host.handover import HandoverError
from mh_emulator.host.migration import MigrationError
from mh_emulator.host.placement import PlacementError
from mh_emulator.host.ring import HelperRefused, HelperStopped
from mh_emulator.owner import OwnerRefuses
from mh_emulator.verdict.proof import WrongPlaintext
from mh_qemu.machine import QemuError
from mh_qemu.qmp import QmpError

VERSION = "0.1.0"

_EPILOG = """\
exit codes: 0 good; 1 what was asked for is bad (source, layout, image, migration), audit found something,
two layouts differ, or walk reaches nothing; 2 the command line cannot be carried out; 130 interrupted.
Results go to stdout, everything else to stderr."""

_DIAGNOSTICS = (AssemblyError, LinkError)
"""Errors that are lines of their own, which name a place in a source or an object."""

_BAD_THINGS = (
    *_DIAGNOSTICS, LayoutError, PagingError, PlacementError, HandoverError, ImageError,
    DumpError, BadAddressError, NoPictureError, FirmwareError, TreeError,
    MigrationError, HelperRefused, HelperStopped, OwnerRefuses, WrongPlaintext, QemuError, QmpError,
    OSError, MemoryError,
)  # fmt: skip

_VERBS = (build, migrate, show, walk, audit, diff, compare, ovmf, psp, secret, bench, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        _check_stdout()
        with interrupts.noted():
            code = int(arguments.run(arguments))
            interrupts.check()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail(arguments, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone; nothing more can be said there.
        _silence_stdout()
        return BAD
    except UsageError as error:
        return _fail(arguments, str(error), USAGE)
    except _BAD_THINGS as error:
        if _is_stdout_full(error):
            _silence_stdout()
        return _fail(arguments, error, BAD)
    else:
        return code


def _check_stdout() -> None:
    if sys.stdout is None:
        # The next file that is opened would take its place, and our output with it.
        raise UsageError("standard output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """Let nothing more be written there, not even when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(arguments: argparse.Namespace, error: Exception | str, code: int) -> int:
    if arguments.debug:
        raise  # noqa: PLE0704 - called from an except clause: the traceback is what was asked for
    print(str(error) if isinstance(error, _DIAGNOSTICS) else f"build.py: error: {_line(error)}", file=sys.stderr)
    return code


def _line(error: Exception | str) -> str:
    """The error as one line, whatever the names in it contain."""
    text = str(error)
    if _is_stdout_full(error):
        text = f"standard output: {os.strerror(errno.ENOSPC)}"
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = text or "not enough memory"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_stdout_full(error: Exception | str) -> bool:
    # Every file that is written says its name.
    return isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None


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
