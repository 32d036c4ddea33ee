"""Which series applies to which release of edk2, tried on a clone of its repository.

    python -m mh_builder.edk2.releases CLONE      writes ovmf_patches/releases.json, or says what no series applies to

The result is kept as the identities of the files that a series changes, before and after, by which `ovmf patch` knows
a tree. Releases that a series was made for are not in it: its patches name their files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mh_builder.edk2.series import RELEASES, all_series, contents_id
from mh_builder.edk2.tree import Tree, TreeError, read_tree

FIRST = "edk2-stable202211"
_MARK = "OvmfPkg/OvmfPkg.dec"


def tags(clone: Path) -> list[str]:
    """Every stable release from `FIRST` on."""
    names = _git(clone, "tag", "--list", "edk2-stable*").decode().split()
    return sorted(name for name in names if name >= FIRST and "-rc" not in name)


def tried(clone: Path, tag: str) -> Tree:
    """What the series makes of a release. Raises `TreeError` where none applies."""
    with tempfile.TemporaryDirectory(prefix="mh-release-") as name:
        root = Path(name)
        for path in {_MARK, *(change.path for series in all_series() for change in series.changes)}:
            shown = subprocess.run(  # noqa: S603
                ["git", "-C", str(clone), "show", f"{tag}:{path}"],  # noqa: S607
                check=False, capture_output=True,
            )  # fmt: skip
            if shown.returncode == 0:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(shown.stdout)
        return read_tree(root)


def rows(clone: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """(release, series and files) of all that no series was made for. Raises `TreeError`."""
    made = {series.release for series in all_series()}
    for tag in tags(clone):
        if tag not in made:
            tree = tried(clone, tag)
            files = {
                path: [_git(clone, "rev-parse", f"{tag}:{path}").decode().strip(), contents_id(data)]
                for path, data in sorted(tree.patched.items())
            }
            yield tag, {"series": tree.series.made_for, "files": files}


def _git(clone: Path, *words: str) -> bytes:
    return subprocess.run(["git", "-C", str(clone), *words], check=True, capture_output=True).stdout  # noqa: S603, S607


def main(arguments: Sequence[str]) -> int:
    """Try every release of the clone."""
    try:
        found = dict(rows(Path(arguments[0])))
    except TreeError as error:
        print(f"releases: {error}", file=sys.stderr)
        return 1
    RELEASES.write_text(json.dumps(found, indent=1) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
