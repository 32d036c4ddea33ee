"""What a guest's RAM holds when it is launched: bytes, or a file that is read where it is needed."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from mh_abi.errors import MigrationHelperError


class ContentsError(MigrationHelperError, ValueError):
    """A file that does not hold what it held; the message names both numbers."""


class Contents(Protocol):
    """A guest's RAM contents, which every step of a migration may ask for again; `bytes` are such."""

    def __len__(self) -> int:
        """Their bytes."""

    def __getitem__(self, part: slice, /) -> bytes:
        """The bytes of `part`, which has no step; those behind the end are left out."""


class FileContents:
    """The bytes that `path` has when it is opened, without holding them. Raises `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> Self:
        """The contents, until the block ends."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """The file's bytes, as it was opened."""
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        """The bytes of `part`. Raises `ContentsError` where the file has become shorter, and `OSError`."""
        start, end, _ = part.indices(self._size)
        pieces = []
        while start < end:
            pieces.append(os.pread(self._file.fileno(), end - start, start))
            if not pieces[-1]:
                raise ContentsError(f"RAM file {self._path} had {self._size:#x} bytes, {start:#x} are left")
            start += len(pieces[-1])
        return b"".join(pieces)
