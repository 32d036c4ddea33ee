"""One whole run of the matrix, whatever number of workers wants it."""

from __future__ import annotations

import fcntl
import pickle
from pathlib import Path

import pytest

from emulator_tests.command.conftest import command
from mh_builder.schemes import SCHEMES
from mh_compare.attacks import ATTACKS
from mh_compare.columns import COLUMNS
from mh_compare.results import Comparison
from mh_compare.run import DEFAULT_PART, compare, tasks

__all__ = ["command", "comparison"]


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Comparison:
    """Everything that `build.py compare` finds out. The first worker that asks makes it, the others read it."""
    folder = tmp_path_factory.getbasetemp()
    path = (folder if worker_id == "master" else folder.parent) / "comparison"
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            result = compare(tasks([*COLUMNS, *ATTACKS], list(SCHEMES), DEFAULT_PART), jobs=1, done=lambda: None)
            path.write_bytes(pickle.dumps(result))
    loaded = pickle.loads(path.read_bytes())  # noqa: S301 - our own
    assert isinstance(loaded, Comparison)
    return loaded
