"""Flash images and other small files that the `ovmf` verbs read and write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import LARGEST_FLASH
from mh_builder.image.output import write_files
from mh_cli.errors import UsageError


def read_file(path: Path, limit: int = LARGEST_FLASH) -> bytes:
    """The contents of a regular file of at most `limit` bytes. Raises `UsageError`, `FirmwareError`."""
    try:
        if not path.is_file():
            raise UsageError(f"{path} is no regular file" if path.exists() else f"{path}: No such file or directory")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if len(data) > limit:
        raise FirmwareError(f"{path}: {path.stat().st_size:#x} bytes, at most {limit:#x} are expected")
    return data


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Let errors of the firmware reader begin with the name of the file."""
    try:
        yield
    except FirmwareError as error:
        raise FirmwareError(f"{path}: {error}") from error


def check_output(output: Path, *inputs: Path) -> None:
    """Raise `UsageError` where writing `output` would change one of the `inputs`."""
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise UsageError(f"output {output} is the input {path}")


def write_file(path: Path, data: bytes) -> None:
    """Write the file whole or not at all. Raises `OSError` with its path."""
    write_files({path.name: data}, path.parent)
