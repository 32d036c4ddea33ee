"""An edk2 tree: which release it is, and what a series makes of its files.

Nothing here writes into the tree; the patches are tried on copies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mh_abi.errors import MigrationHelperError
from mh_builder.edk2.series import Series, all_releases, all_series, contents_id

_MARK = "OvmfPkg/OvmfPkg.dec"
"""What every tree has that we have anything to do with."""


class TreeError(MigrationHelperError, ValueError):
    """A tree that cannot be patched; one line that says which and why."""


class State(Enum):
    """How a tree stands to the series that fits it."""

    RELEASE = "release"
    """Every file that the series changes is the release's own."""
    MODIFIED = "modified"
    """Some differ from it, and the series applies all the same."""
    APPLIED = "applied"
    """The series is in already."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree that a series fits; `patched` is what the series makes of its files, empty where that is done."""

    series: Series
    state: State
    patched: dict[str, bytes]


def read_tree(root: Path) -> Tree:
    """Find the series for the tree at `root`. Raises `TreeError`."""
    if not (root / _MARK).is_file():
        raise TreeError(f"{root}: no edk2 tree: it has no {_MARK}")
    reasons = []
    for series in sorted(all_releases(), key=lambda series: _strangers(root, series)):
        ids = _ids(root, series)
        if all(ids[change.path] == change.after for change in series.changes):
            return Tree(series, State.APPLIED, {})
        _check_whole(root, series, ids)
        patched, reason = _try(root, series)
        if patched:
            return Tree(series, State.MODIFIED if _strangers(root, series) else State.RELEASE, patched)
        reasons.append((series, reason))
    raise _no_series(root, *reasons[0])


def _ids(root: Path, series: Series) -> dict[str, str | None]:
    return {
        change.path: contents_id((root / change.path).read_bytes()) if (root / change.path).is_file() else None
        for change in series.changes
    }


def _strangers(root: Path, series: Series) -> int:
    """How many files are neither as before nor as after the series."""
    ids = _ids(root, series)
    return sum(ids[change.path] not in {change.before, change.after} for change in series.changes)


def _check_whole(root: Path, series: Series, ids: dict[str, str | None]) -> None:
    done = [change.path for change in series.changes if ids[change.path] == change.after]
    todo = [change.path for change in series.changes if ids[change.path] != change.after]
    if done:
        raise TreeError(f"{root}: {series.release} is half applied: {done[0]} is patched, {todo[0]} is not")


def _try(root: Path, series: Series) -> tuple[dict[str, bytes], str]:
    """What the series makes of its files, or nothing and git's first complaint."""
    with tempfile.TemporaryDirectory(prefix="mh-edk2-") as name:
        copy = Path(name)
        for change in series.changes:
            if (root / change.path).is_file():
                (copy / change.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / change.path, copy / change.path)
        result = _git_apply(copy, series.patches)
        if result.returncode:
            return {}, result.stderr.strip().partition("\n")[0].removeprefix("error: ")
        return {change.path: (copy / change.path).read_bytes() for change in series.changes}, ""


def _git_apply(folder: Path, patches: Iterable[Path]) -> subprocess.CompletedProcess[str]:
    git = shutil.which("git")
    if git is None:
        raise TreeError("git is not installed: it applies the patches")
    command = [git, "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn", *map(str, patches)]
    # Inside some repository git would take the paths from its top, and pass over those outside the folder.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), "LC_ALL": "C"}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)  # noqa: S603


def _no_series(root: Path, nearest: Series, reason: str) -> TreeError:
    names = ", ".join(series.release for series in all_series())
    for change in nearest.changes:
        path = root / change.path
        if path.is_file() and b"\r\n" not in path.read_bytes():
            return TreeError(f"{root}: {change.path} has lost its CRLF line ends (core.autocrlf?): no series applies")
    return TreeError(f"{root}: no series applies ({names}); {nearest.release}, the nearest, says: {reason}")
