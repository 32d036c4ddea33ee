"""Files of an image on disk: all of them or none."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mh_builder.image.elf import write_elf
from mh_builder.image.manifest import write_manifest
from mh_builder.image.mapfile import write_map
from mh_builder.image.model import Image, vcpu_section
from mh_builder.image.reset import has_reset, write_reset
from mh_builder.image.vmsa import write_vmsa


def image_files(image: Image) -> dict[str, bytes]:
    """File name -> contents of everything that is written for one image."""
    name = image.space.name
    files = {
        f"{name}.bin": image.data,
        f"{name}.elf": write_elf(image),
        f"{name}.map": write_map(image).encode(),
        f"{name}.json": write_manifest(image).encode(),
    }
    if has_reset(image):
        files[f"{name}.reset"] = write_reset(image)
    if image.space.options.start.measured and image.space.options.c_bit is not None:
        for vcpu in range(image.space.options.vcpus):
            page = write_vmsa(image, image.space.base, image.space.options.c_bit, vcpu)
            files[f"{vcpu_section(name, vcpu)}.vmsa"] = page
    return files


def write_images(images: Iterable[Image], folder: Path) -> list[Path]:
    """Write all files of all images into `folder`, as `write_files` does; return their paths."""
    files: dict[str, bytes] = {}
    for image in images:
        files |= image_files(image)
    return write_files(files, folder)


def write_files(files: Mapping[str, bytes], folder: Path, mode: int = 0o644) -> list[Path]:
    """Write `files`, name -> contents, into `folder`: all or none, each with the rights `mode`.

    The folder, and those in names, are made if need be. Everything is written beside its place first and renamed at the
    end, so a full disk leaves the folder as it was; Ctrl-C and a polite end wait until all is done. Raises `OSError`
    with the path in question.
    """
    with _interrupts_wait(), ExitStack() as undo:
        for parent in dict.fromkeys([folder, *((folder / name).parent for name in files)]):
            _make_folder(parent, undo)
        staged = [(_stage(folder / name, contents, mode, undo), folder / name) for name, contents in files.items()]
        for _, path in staged:
            if path.is_dir():
                raise _error(errno.EISDIR, path)
        for temporary, path in staged:
            temporary.replace(path)
        undo.pop_all()
    return [path for _, path in staged]


_POLITE = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _POLITE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_folder(folder: Path, undo: ExitStack) -> None:
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        undo.callback(_remove_empty, path)
    if not folder.is_dir():
        raise _error(errno.ENOTDIR, folder)


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _stage(path: Path, contents: bytes, mode: int, undo: ExitStack) -> Path:
    """Write `contents` into a file beside `path`; return where."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        undo.callback(Path(name).unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(handle, mode)
            stream.write(contents)
    except OSError as error:
        raise _error(error.errno or errno.EIO, path) from error
    return Path(name)


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
