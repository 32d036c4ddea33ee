"""Files of an image on disk: all of them or none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from mh_builder.image.elf import write_elf
from mh_builder.image.manifest import write_manifest
from mh_builder.image.mapfile import write_map
from mh_builder.image.model import Image


def image_files(image: Image) -> dict[str, bytes]:
    """File name -> contents of everything that is written for one image."""
    name = image.space.name
    return {
        f"{name}.bin": image.data,
        f"{name}.elf": write_elf(image),
        f"{name}.map": write_map(image).encode(),
        f"{name}.json": write_manifest(image).encode(),
    }


def write_images(images: Iterable[Image], folder: Path) -> list[Path]:
    """Write all files of all images into `folder`; return their paths. Raises `OSError`.

    Everything is written beside its place first and renamed at the end, so a full disk or a Ctrl-C
    on the way leaves the folder as it was.
    """
    files: dict[str, bytes] = {}
    for image in images:
        files |= image_files(image)
    return write_files(files, folder)


def write_files(files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write `files`, name -> contents, into `folder`, which is made if need be: all or none."""
    made = not folder.exists()
    with ExitStack() as undo:
        folder.mkdir(parents=True, exist_ok=True)
        if made:
            undo.callback(_remove_empty, folder)
        staged = []
        for name, contents in files.items():
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
            undo.callback(Path(temporary).unlink, missing_ok=True)
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(handle, 0o644)
                stream.write(contents)
            staged.append((Path(temporary), folder / name))
        for temporary_path, path in staged:
            temporary_path.replace(path)
        undo.pop_all()
    return [path for _, path in staged]


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
