"""A patch series: text patches for one edk2 release, each file in one patch only.

The `index` lines of a patch name the contents that it was made for and what it makes of them (git-diff,
"generating patch text with -p"), so a tree tells by itself which release it is and whether it is patched already.
Releases whose files differ from those, and to which a series applies all the same, are in `ovmf_patches/releases.json`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ovmf_patches import FOLDER

UPSTREAM = "edk2-upstream"

RELEASES = FOLDER / "releases.json"

_CHANGE = re.compile(rb"^diff --git a/(\S+) b/\1\nindex ([0-9a-f]{40})\.\.([0-9a-f]{40}) \d+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Change:
    """One file: its path in the tree, and the identity of its contents before and after."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Series:
    """The patches for one release, in order, and what they change of it."""

    release: str
    patches: tuple[Path, ...]
    changes: tuple[Change, ...]

    @property
    def made_for(self) -> str:
        """The release that the patches were made for."""
        return self.patches[0].parent.name


@cache
def all_series() -> tuple[Series, ...]:
    """Every series, the newest release first."""
    names = sorted((path.name for path in FOLDER.glob("edk2-*")), key=lambda name: (name == UPSTREAM, name))
    return tuple(_read(FOLDER / name) for name in reversed(names))


@cache
def all_releases() -> tuple[Series, ...]:
    """Every release that a series is known to apply to, the newest first."""
    made = {series.release: series for series in all_series()}
    others = [
        Series(release, made[row["series"]].patches, tuple(Change(path, *ids) for path, ids in row["files"].items()))
        for release, row in json.loads(RELEASES.read_text(encoding="ascii")).items()
    ]
    return tuple(
        sorted((*made.values(), *others), key=lambda one: (one.release == UPSTREAM, one.release), reverse=True)
    )


def contents_id(data: bytes) -> str:
    """What git calls a blob of `data`."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _read(folder: Path) -> Series:
    patches = tuple(sorted(folder.glob("*.patch")))
    found = [match for patch in patches for match in _CHANGE.findall(patch.read_bytes())]
    return Series(folder.name, patches, tuple(Change(*(part.decode() for part in match)) for match in found))
