"""OVMF images as Debian's suites package them: fetched by apt, unpacked.

    python -m ovmf_patches.images FOLDER          fetches what is not there yet
    python -m ovmf_patches.images FOLDER SUITE    one suite alone

Each suite is a folder of FOLDER with the images and, in `VERSION`, the version of the packages.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ovmf_patches.apt import fetch_all, private_apt, run, unpack, workplace

PACKAGES = {
    "bookworm": ("ovmf", "ovmf-ia32"),
    "trixie": ("ovmf", "ovmf-ia32"),
    "sid": ("ovmf-generic", "ovmf-amdsev", "ovmf-inteltdx"),
}
"""Debian suite -> the packages that have its images."""

VERSION = "VERSION"
_PLACES = ("usr/share/OVMF", "usr/share/ovmf")


def fetch(suite: str, folder: Path) -> Path:
    """The suite's images in `folder`, fetched if they are not there. Raises `AptError`."""
    images = folder / suite
    if images.is_dir():
        return images
    with workplace(folder) as work:
        unpacked = work / "images"
        unpacked.mkdir()
        for package in _download(suite, work):
            _unpack(package, unpacked)
        unpacked.rename(images)
    return images


def _download(suite: str, work: Path) -> list[Path]:
    options = private_apt("deb", suite, work)
    for package in PACKAGES[suite]:
        run(["apt-get", *options, "download", package], work, f"apt has no package {package} of {suite}")
    return sorted(work.glob("*.deb"))


def _unpack(package: Path, images: Path) -> None:
    root = images.parent / package.stem
    unpack(package, root)
    for place in _PLACES:
        for path in sorted((root / place).glob("*.fd")):
            if not path.is_symlink():
                path.rename(images / path.name)
    (images / VERSION).write_text(f"{package.name.split('_')[1]}\n", encoding="ascii")


def main(arguments: Sequence[str]) -> int:
    """Fetch what the command line names."""
    return fetch_all("images", fetch, list(PACKAGES), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
