"""Flash images and other small files that the `ovmf` verbs read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mh_abi.errors import MigrationHelperError
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import LARGEST_FLASH
from mh_builder.firmware.inject import Carried, extract, firmware_entry
from mh_builder.firmware.kind import check_kind
from mh_builder.igvm.announced import announced
from mh_builder.igvm.file import LARGEST_IGVM, Igvm, is_igvm
from mh_builder.igvm.firmware import flash_of, with_flash
from mh_builder.igvm.layout import MAGIC
from mh_builder.igvm.read import read_igvm
from mh_builder.image.output import write_files
from mh_cli.errors import UsageError


def read_file(path: Path, limit: int = LARGEST_FLASH) -> bytes:
    """The contents of a regular file of at most `limit` bytes. Raises `UsageError`, `FirmwareError`."""
    return _read(path, lambda _: limit)


def _read(path: Path, limit_of: Callable[[bytes], int]) -> bytes:
    """The contents of a regular file, of at most as many bytes as its first ones allow."""
    try:
        if not path.is_file():
            raise UsageError(f"{path} is no regular file" if path.exists() else f"{path}: No such file or directory")
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
            limit = limit_of(head)
            data = head + file.read(limit + 1 - len(head))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if len(data) > limit:
        raise FirmwareError(f"{path}: {path.stat().st_size:#x} bytes, at most {limit:#x} are expected")
    return data


@dataclass(frozen=True, slots=True)
class Firmware:
    """A flash image: the file itself, or pages of an IGVM file."""

    data: bytes
    igvm: Igvm | None

    @property
    def flash(self) -> bytes:
        """The flash image. Raises `FirmwareError` where an IGVM file has none."""
        return self.data if self.igvm is None else flash_of(self.igvm)

    def carried(self) -> Carried:
        """The helper that it carries, in its volume or as data of an IGVM file. Raises `FirmwareError`."""
        blob = None if self.igvm is None else announced(self.igvm)
        return extract(self.flash) if blob is None else Carried(blob, firmware_entry(blob))

    def changed(self, flash: bytes) -> Firmware:
        """An image of this kind with `flash` in it. Raises `FirmwareError`."""
        if self.igvm is None:
            return Firmware(flash, None)
        igvm = with_flash(self.igvm, flash)
        return Firmware(igvm.data, igvm)


def read_image(path: Path) -> Firmware:
    """Read a flash image or an IGVM file. Raises `UsageError`, `FirmwareError`."""
    data = _read(path, lambda head: LARGEST_IGVM if is_igvm(head) else LARGEST_FLASH)
    with about(path):
        if is_igvm(data):
            return Firmware(data, read_igvm(data))
        check_kind(data)
        return Firmware(data, None)


@contextmanager
def about(path: Path, kind: type[MigrationHelperError] = FirmwareError) -> Iterator[None]:
    """Let errors of its reader, of that kind, begin with the name of the file."""
    try:
        yield
    except kind as error:
        raise kind(f"{path}: {error}") from error


def check_output(output: Path, *inputs: Path) -> None:
    """Raise `UsageError` where writing `output` would change one of the `inputs`."""
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise UsageError(f"output {output} is the input {path}")


def write_file(path: Path, data: bytes) -> None:
    """Write the file whole or not at all. Raises `OSError` with its path."""
    write_files({path.name: data}, path.parent)
