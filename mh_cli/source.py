"""What a verb is to look at: a file, and what the command line says of it."""

from __future__ import annotations

import argparse
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mh_abi.image import ImageError
from mh_builder.firmware.errors import FirmwareError
from mh_builder.paging import PAE_LEVELS
from mh_builder.parts import PARTS
from mh_builder.report.layout import Layout
from mh_builder.report.memory_type import PATS
from mh_builder.report.open import DEFAULT_PART, WIDEST, Hints, open_every_cpu, open_layout
from mh_builder.report.physical import DumpError, MemoryGapError, map_file
from mh_builder.schemes.space import C_BITS
from mh_cli import options
from mh_cli.errors import UsageError

WHAT = "flat image, ELF file, firmware with the helper in it, or memory dump"
"""What `read_layout` reads, for people."""


def add_memory(parser: argparse.ArgumentParser) -> None:
    """How to read the file: the processor, and what a dump does not say of itself."""
    parser.add_argument(
        "--part", choices=sorted(PARTS),
        help=f"processor (default: {DEFAULT_PART} for images; for dumps no C-bit and MAXPHYADDR {WIDEST})",
    )  # fmt: skip
    add_dump(parser)


DUMP = ("c_bit", "physical_bits", "base", "cr3", "la57", "cpu", "pat")
"""What `add_dump` adds."""


def add_dump(parser: argparse.ArgumentParser) -> None:
    """What a dump does not say of itself, and no part says."""
    group = parser.add_argument_group("memory")
    group.add_argument("--c-bit", type=options.bit, metavar="BIT", help="C-bit (default: the image's or the part's)")
    group.add_argument("--physical-bits", type=options.bit, metavar="BITS", help="MAXPHYADDR (default: the part's)")
    group.add_argument(
        "--base",
        type=options.size,
        metavar="GPA",
        help="GPA of the first byte (default: the image's own; 0 for raw dumps)",
    )
    group.add_argument("--cr3", type=options.size, metavar="CR3", help="root table of a dump (QEMU's ELF dumps say it)")
    levels = group.add_mutually_exclusive_group()
    levels.add_argument("--la57", action="store_true", help="5-level tables (QEMU's dumps say it)")
    levels.add_argument("--pae", action="store_true", help="tables of 32-bit code with PAE (QEMU's dumps say it)")
    group.add_argument("--marks", action="store_true", help="A, D and bits of software of a dump count (an image's do)")
    group.add_argument("--efer", type=options.size, metavar="EFER", help="MSR EFER of a dump (no dump says it)")
    group.add_argument("--cpu", type=_number, metavar="N", help="whose tables of a dump (default: the first, 0)")
    group.add_argument(
        "--pat", choices=sorted(PATS), help="MSR PAT of a dump, by which memory types have names (default: not known)"
    )


def read_layout(path: Path, arguments: argparse.Namespace) -> Layout:
    """The layout of a file. Raises `DumpError`, `ImageError`, `FirmwareError`, `UsageError`."""
    with _about(path):
        return open_layout(_open(path), path.stem, _hints(arguments))


def read_every_cpu(path: Path, arguments: argparse.Namespace) -> list[Layout]:
    """A layout for each CPU of a dump with tables of its own. Raises as `read_layout` does."""
    with _about(path):
        return open_every_cpu(_open(path), path.stem, _hints(arguments))


def warnings(layout: Layout) -> Iterator[str]:
    """What makes a listing say less than it seems to."""
    reading = layout.reading
    if not reading.mappings:
        yield f"nothing is mapped by the tables at CR3 {reading.cr3:#x}"
    if reading.defects:
        count = len(reading.defects)
        yield f"{count} entr{'y is' if count == 1 else 'ies are'} defective: see `audit`"
    if reading.stopped is not None:
        yield f"the tables are too large: not looked at from {reading.stopped:#x} on"


@contextmanager
def _about(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryGapError as error:
        raise DumpError(f"{path}: {error}") from None
    except (DumpError, FirmwareError, ImageError) as error:
        raise type(error)(f"{path}: {error}") from None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a CPU, from 0")
    return int(text)


def _hints(arguments: argparse.Namespace) -> Hints:
    bits, c_bit = arguments.physical_bits, arguments.c_bit
    if bits is not None and not 32 <= bits <= WIDEST:
        raise UsageError(f"MAXPHYADDR {bits} is not in 32 to {WIDEST}")
    if c_bit is not None and c_bit not in C_BITS:
        raise UsageError(f"C-bit {c_bit} is not in {C_BITS.start} to {C_BITS.stop - 1}")
    part = PARTS.get(arguments.part or "")
    pat = None if arguments.pat is None else PATS[arguments.pat]
    return Hints(
        part,
        c_bit,
        bits,
        arguments.base,
        arguments.cr3,
        5 if arguments.la57 else PAE_LEVELS if arguments.pae else None,
        arguments.cpu,
        pat,
        arguments.marks,
        arguments.efer,
    )


def _open(path: Path) -> bytes | mmap.mmap:
    try:
        if not path.is_file():
            path.stat()
            raise UsageError(f"{path} is no regular file")
        return map_file(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
