"""Linux kernels for clouds as Debian's suites package them: fetched by apt, unpacked, not installed.

    python -m ovmf_patches.kernels FOLDER          fetches what is not there yet
    python -m ovmf_patches.kernels FOLDER SUITE    one suite alone

Each suite is a folder of FOLDER with `vmlinuz` in it; its modules are not needed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ovmf_patches.apt import AptError, fetch_all, private_apt, run, unpack, workplace

SUITES = ("bookworm", "trixie", "sid")
"""Debian suites: kernels 6.1, 6.12, and one of this year."""

_PACKAGE = "linux-image-cloud-amd64"
_DEPENDS = re.compile(r"Depends: linux-image-(\S+)")
_CARRIERS = ("linux-image", "linux-binary")
"""Which package has the kernel in it: the second one since Debian 14."""


def fetch(suite: str, folder: Path) -> Path:
    """The suite's kernel in `folder`, fetched if it is not there. Raises `AptError`."""
    kernel = folder / suite / "vmlinuz"
    if kernel.exists():
        return kernel
    with workplace(folder) as work:
        root = work / "root"
        for package in _download(suite, work):
            unpack(package, root)
        found = [path for path in root.rglob("vmlinuz*") if path.is_file() and not path.is_symlink()]
        if len(found) != 1:
            raise AptError(f"{_PACKAGE} of {suite} brings {len(found)} kernels, not 1")
        kernel.parent.mkdir(exist_ok=True)
        found[0].rename(kernel)
    return kernel


def _download(suite: str, work: Path) -> list[Path]:
    options = private_apt("deb", suite, work)
    command = ["apt-cache", *options, "depends", _PACKAGE]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    depends = _DEPENDS.search(shown.stdout)
    if depends is None:
        raise AptError(f"apt has no package {_PACKAGE} of {suite}")
    for carrier in _CARRIERS:
        # Each suite has one of them or both.
        run(["apt-get", *options, "download", f"{carrier}-{depends[1]}"], work, None)
    return sorted(work.glob("*.deb"))


def main(arguments: Sequence[str]) -> int:
    """Fetch what the command line names."""
    return fetch_all("kernels", fetch, SUITES, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
