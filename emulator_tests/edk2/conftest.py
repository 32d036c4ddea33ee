"""Real edk2 trees: in CI they must be there, elsewhere their absence is a skip."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emulator_tests.command.conftest import command
from emulator_tests.edk2.native_driver import NativeDriver, compile_driver
from mh_builder.edk2.series import Series, all_series
from ovmf_patches import FOLDER
from ovmf_patches.sources import SUITES

__all__ = ["command"]

CACHE = FOLDER.parent / ".cache" / "edk2"
MARK = "OvmfPkg/OvmfPkg.dec"

Edk2 = Callable[[str], Path]


def series_of(release: str) -> Series:
    return next(series for series in all_series() if series.release == release)


@pytest.fixture(params=list(SUITES))
def release(request: pytest.FixtureRequest) -> str:
    """Each release that Debian has."""
    return str(request.param)


@pytest.fixture(scope="session")
def edk2() -> Edk2:
    """The tree of a release, not to be written into."""

    def find(release: str) -> Path:
        tree = CACHE / release
        if not tree.is_dir() and os.environ.get("CI") == "true":
            pytest.fail(f"{tree} is not there: see the Makefile")
        if not tree.is_dir():
            pytest.skip(f"{tree} is not there: see the Makefile")
        return tree

    return find


@pytest.fixture
def copy(edk2: Edk2, tmp_path: Path) -> Edk2:
    """What the series changes of a release, in a folder of the test's own."""

    def make(release: str) -> Path:
        root = tmp_path / release
        for path in (MARK, *(change.path for change in series_of(release).changes)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(edk2(release) / path, root / path)
        return root

    return make


@pytest.fixture(scope="module")
def driver(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeDriver]:
    path: Path = tmp_path_factory.mktemp("native") / "driver"
    compile_driver(program("cc"), path)
    with NativeDriver(path) as running:
        yield running
