"""Stock OVMF images of this machine, and what becomes of them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator_tests.command.conftest import command
from emulator_tests.firmware.loaders import LOADERS, Unavailable
from mh_builder.firmware.inject import inject
from mh_builder.image.model import Image

__all__ = ["command"]

_FOLDER = Path("/usr/share/OVMF")
_SMALLEST = _FOLDER / "OVMF_CODE.fd"

STOCK = {
    "X64": _SMALLEST if _SMALLEST.exists() else _FOLDER / "OVMF_CODE_4M.fd",
    "4M": _FOLDER / "OVMF_CODE_4M.fd",
    "4M-secboot": _FOLDER / "OVMF_CODE_4M.secboot.fd",
    "with-variables": Path("/usr/share/ovmf/OVMF.fd"),
}
"""Debian's package `ovmf`: X64 and Ia32X64 builds, with and without SMM, with and without the variable store.

From Debian 13 on it has no image of 2 MiB.
"""

VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

Find = Callable[[str], Path]


@pytest.fixture(scope="session")
def stock() -> Find:
    """Path of a stock image by its name in `STOCK`: in CI it must be there, elsewhere its absence is a skip."""

    def find(name: str) -> Path:
        path = STOCK[name]
        if not path.exists() and os.environ.get("CI") == "true":
            pytest.fail(f"{path} is not installed")
        if not path.exists():
            pytest.skip(f"{path} is not installed")
        return path

    return find


@pytest.fixture(scope="session")
def injected(stock: Find, images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory) -> Find:
    """Path of a stock image with the helper of `regions` in it; made once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is not None:
        folder = folder.parent / f"firmware-{run}"
        folder.mkdir(exist_ok=True)

    def make(name: str) -> Path:
        path = folder / f"{name}.fd"
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                path.write_bytes(inject(stock(name).read_bytes(), images["regions"].data))
        return path

    return make


@pytest.fixture(params=list(STOCK))
def name(request: pytest.FixtureRequest) -> str:
    """Each stock image in turn."""
    return str(request.param)


def build(loader: str) -> bytes:
    """A loader by its name in `LOADERS`: in CI it must be built, elsewhere its absence is a skip."""
    try:
        return LOADERS[loader]()
    except Unavailable as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(params=list(LOADERS))
def driver(request: pytest.FixtureRequest) -> bytes:
    """Each loader in turn."""
    return build(str(request.param))


@pytest.fixture
def drivers() -> list[bytes]:
    """All loaders."""
    return [build(loader) for loader in LOADERS]
