"""One run of everything, shared by all workers: each does what nobody has begun, and waits for the rest."""

from __future__ import annotations

import fcntl
import os
import pickle
import sys
from faulthandler import dump_traceback_later
from pathlib import Path

import pytest

from emulator_tests.command.conftest import command
from mh_builder.image.model import Image
from mh_builder.schemes import EVERY_SCHEME
from mh_compare.attacks import ATTACKS
from mh_compare.candidate import candidate
from mh_compare.columns import COLUMNS
from mh_compare.results import AttackResult, Cell, Comparison
from mh_compare.run import DEFAULT_PART, tasks

__all__ = ["command", "comparison", "plain"]

NAMES = [*COLUMNS, *ATTACKS]


@pytest.fixture(scope="session")
def plain() -> Image:
    """An image that tests may weaken."""
    return candidate("regions", DEFAULT_PART).image


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Comparison:
    """Everything that `build.py compare` finds out."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "comparison"
    folder.mkdir(exist_ok=True)
    patience = float(pytestconfig.getini("faulthandler_timeout"))
    for how in (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX):
        for name in NAMES:
            # The time limit is that of one of them, not of all together.
            dump_traceback_later(patience, exit=True, file=sys.__stderr__ or 2)
            make(name, folder / name, how)
    results = [result for name in NAMES for result in pickle.loads((folder / name).read_bytes())]  # noqa: S301 - ours
    return Comparison(
        part=DEFAULT_PART,
        layouts=tuple(EVERY_SCHEME),
        cells=tuple(result for result in results if isinstance(result, Cell)),
        attacks=tuple(result for result in results if isinstance(result, AttackResult)),
    )


def make(name: str, path: Path, how: int) -> None:
    """Put the results of a column or an attack at `path`; `how` decides about waiting for somebody who is at it."""
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, how)
        except BlockingIOError:
            return
        if not path.exists():
            results = [task.run() for task in tasks([name], list(EVERY_SCHEME), DEFAULT_PART)]
            part = path.with_suffix(".part")
            part.write_bytes(pickle.dumps(results))
            part.rename(path)
