"""`build.py`, installed as `sev-mh`: reads the arguments, runs a verb, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mh_abi.errors import DiagnosticsError, MigrationHelperError
from mh_cli import __version__, interrupts
from mh_cli.errors import BAD, INTERRUPTED, USAGE, UsageError
from mh_cli.verbs import add_verbs

VERBS = {
    "build": "assemble and link, write .bin .elf .map .json .reset .vmsa",
    "migrate": "migrate a guest under emulation",
    "boot": "run firmware, or a Linux kernel, under emulation, and migrate it",
    "show": "list or draw what the page tables of an image map",
    "walk": "translate an address, level by level, or back",
    "audit": "check every mapping of images or dumps",
    "diff": "compare the page tables of two images",
    "compare": "schemes, or two layouts, side by side",
    "ovmf": "put the helper into OVMF images or sources, read and measure images",
    "psp": "ask the secure processor for an isolated helper",
    "snp": "play what an SNP host can ask of the secure processor and the RMP",
    "secret": "make the launch secret of one guest",
    "bench": "measure kernels, builds and emulated migrations",
    "doctor": "check packages and programs",
}
"""Verb -> one line of help; each is a module of this package."""

INSTALLED = "sev-mh"

_EPILOG = """\
exit codes: 0 good; 1 what was asked for is bad (source, layout, image, migration), audit found something,
two layouts differ, or walk reaches nothing; 2 the command line cannot be carried out; 130 interrupted.
Results go to stdout, everything else to stderr."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    arguments = argparse.Namespace(debug=False)
    try:
        _parser().parse_args(argv, arguments)
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
    except ModuleNotFoundError as missing:
        remedy = "install it again" if _prog() == INSTALLED else "run `make`, then .venv/bin/python build.py"
        return _fail(arguments, f"Python package {missing.name!r} is missing: {remedy}", BAD)
    except (MigrationHelperError, OSError, MemoryError) as error:
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
    print(error if isinstance(error, DiagnosticsError) else f"{_prog()}: error: {_line(error)}", file=sys.stderr)
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


def _prog() -> str:
    """The name that the command was called by: that of the installed command, or of its face in the repository."""
    return INSTALLED if Path(sys.argv[0]).name == INSTALLED else "build.py"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_prog(),
        description="Build the SEV migration helper and prove it by migrating a guest. Without a verb: everything.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=_main_job)
    add_verbs(parser, VERBS, prefix="mh_cli.", required=False)
    return parser


def _main_job(arguments: argparse.Namespace) -> int:
    from mh_cli.job import run

    return run(arguments)
