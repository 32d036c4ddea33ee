"""`boot --snapshot FILE`: where a guest begins in place of its reset, or what is written so that it can."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from mh_builder.image.output import write_files
from mh_builder.schemes.space import Start
from mh_cli.errors import UsageError
from mh_cli.ovmf_files import about, read_file

if TYPE_CHECKING:
    from mh_emulator.secret import Secret
    from mh_emulator.snapshot.shelf import Shelf

_OWNERS_ONLY = 0o600
"""A guest's key is in it, and its owner's secret."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """What either kind of guest takes."""
    parser.add_argument(
        "--snapshot", type=Path, metavar="FILE",
        help="go on from the state in FILE; where there is none, write it: where Linux runs its first process, or"
        " where the firmware's loader has placed the helper",
    )  # fmt: skip


def shelf(arguments: argparse.Namespace) -> Shelf | None:
    """What is asked for, if anything. Raises `UsageError`, `FirmwareError` for its size, `SnapshotError`."""
    from mh_emulator.snapshot import file
    from mh_emulator.snapshot.shelf import Saved, Shelf

    path = arguments.snapshot
    if path is None:
        return None
    if arguments.start == Start.ES.value:
        raise UsageError("--snapshot needs --start host: no host has the registers of a vCPU of SEV-ES")
    saved = None
    if path.exists():
        data = read_file(path, file.LARGEST)
        with told_of(arguments):
            saved = Saved.read(data)
    elif not path.parent.is_dir():
        raise UsageError(f"{path}: {path.parent} is no folder")
    return Shelf(saved, lambda data: _write(path, data))


def secret(shelf: Shelf | None, protection: int) -> Secret:
    """The owner's for this guest. Raises `SnapshotError`."""
    from mh_emulator.secret import Secret

    return Secret.fresh(protection) if shelf is None else shelf.secret(protection)


def told_of(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Let errors of the snapshot begin with the name of its file."""
    from mh_emulator.snapshot.errors import SnapshotError

    return nullcontext() if arguments.snapshot is None else about(arguments.snapshot, SnapshotError)


def _write(path: Path, data: bytes) -> None:
    write_files({path.name: data}, path.parent, _OWNERS_ONLY)
